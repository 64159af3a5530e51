//! SIGKILL of the daemon in the middle of switches: the next one finds by measuring how far they were.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Moments, PATIENCE, close, open, recovered, rounds, stack, volumes, written};
use crate::site::{Site, eventually, site_or_skip};

#[test]
fn the_daemon_is_killed_in_the_middle_of_switches() {
    let site = site_or_skip!("the_daemon_is_killed_in_the_middle_of_switches");
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    let ledger = open(&site);
    let mut moments = Moments(7);
    for round in 0..rounds(10, 60) {
        site.write(&stack(5 + round, 0));
        let mut apply = site.start(&["apply", "--yes"]);
        // While the copy is made, or while writes go over.
        if round % 3 == 0 {
            std::thread::sleep(moments.below(1_500));
        } else {
            until_the_standby_runs(&site, &mut apply);
            std::thread::sleep(moments.below(350));
        }
        site.signal("serve", Signal::KILL);
        let _ = apply.wait();
        settle(&site);
        written(&ledger);
    }
    let report = close(ledger, "the daemon killed in switches");
    assert_eq!(report.told.len(), 0, "clients see a pause");
    site.must(&["destroy", "--yes"]);
}

/// Waits until there is the socket of a second instance, or the apply is through.
fn until_the_standby_runs(site: &Site, apply: &mut Child) {
    let sockets = site.root().join("run/databases/shop.ledger");
    let deadline = Instant::now() + PATIENCE;
    while apply.try_wait().unwrap().is_none() {
        let entries = std::fs::read_dir(&sockets).into_iter().flatten().flatten();
        // The link to the one that takes writes leads to one of them.
        let own = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        if own.filter(|entry| entry.path().join(".s.PGSQL.5432").exists()).count() > 1 {
            return;
        }
        assert!(Instant::now() < deadline, "no standby begins");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Applies, which starts a daemon again: one instance as declared, the head and the one before it.
fn settle(site: &Site) {
    eventually("an apply that succeeds", || site.run(&["apply", "--yes"]).status.success());
    recovered(site, &[]);
    let status = site.status();
    assert_eq!(status["healthy"], true, "{status}");
    eventually("no more than two volumes", || volumes(site).len() <= 2);
    let making = site.root().join("run/making");
    assert_eq!(std::fs::read_dir(making).map_or(0, Iterator::count), 0, "something is half made");
}
