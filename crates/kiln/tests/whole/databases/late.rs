//! Changes that come to nothing: the old instance was never touched, and the next change succeeds.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{PATIENCE, close, open, primary, processes, recovered, sql, stack, written};
use crate::site::{Site, eventually, send, site_or_skip, told};

#[test]
fn a_standby_that_never_catches_up_is_given_up_at_the_deadline() {
    let site = site_or_skip!("a_standby_that_never_catches_up_is_given_up_at_the_deadline");
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    let (before, _) = primary(&site);
    let ledger = open(&site);
    let bounded =
        stack(5, 0).replace("replicas =", "rollout = { deadline = \"8s\" }\n  replicas =");
    site.write(&bounded);
    let begun = Instant::now();
    let mut apply = site.command(&["apply", "--yes"]);
    let mut apply = apply.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while apply.try_wait().unwrap().is_none() {
        // Whatever is made for it stands still, again and again.
        for pid in newcomers(&site, &before) {
            send(pid, Signal::STOP);
        }
        assert!(begun.elapsed() < PATIENCE, "the apply does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = apply.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("deadline"), "{}", told(&output));
    written(&ledger);
    eventually("the old one alone", || {
        let component = site.component("database", "ledger");
        component["instances"].as_array().unwrap().len() == 1 && primary(&site).0 == before
    });
    site.write(&stack(6, 0));
    site.must(&["apply", "--yes"]);
    assert_ne!(primary(&site).0, before);
    let report = close(ledger, "a standby that never catches up");
    assert_eq!(report.told.len(), 0);
    site.must(&["destroy", "--yes"]);
}

/// The processes of the database's instances but for one.
fn newcomers(site: &Site, but: &str) -> Vec<i32> {
    let component = site.component("database", "ledger");
    let instances = component["instances"].as_array().unwrap().iter();
    let others = instances.filter(|instance| instance["id"] != but);
    let pids = others.filter_map(|instance| instance["pid"].as_i64());
    pids.flat_map(|pid| processes(i32::try_from(pid).unwrap())).collect()
}

#[test]
fn a_password_whose_file_is_gone_keeps_nobody_out() {
    let site = site_or_skip!("a_password_whose_file_is_gone_keeps_nobody_out");
    let file = site.stack().join("password");
    std::fs::write(&file, "opensesame").unwrap();
    let text =
        |work_mem| stack(work_mem, 0).replace("value = \"opensesame\"", "file = \"password\"");
    site.write(&text(4));
    site.must(&["apply", "--yes"]);
    let (before, _) = primary(&site);
    std::fs::remove_file(&file).unwrap();
    site.write(&text(5));
    let refused = site.run(&["apply", "--yes"]);
    assert!(!refused.status.success());
    assert!(told(&refused).contains("password"), "{}", told(&refused));
    assert_eq!(primary(&site).0, before);
    // Those who begin anew know it all the same.
    site.signal("serve", Signal::KILL);
    site.signal("gateway", Signal::KILL);
    eventually("another daemon", || site.run(&["status"]).status.success());
    recovered(&site, &[]);
    eventually("another gateway", || std::net::TcpStream::connect(site.address()).is_ok());
    assert_eq!(sql(&site, "SELECT 1"), ["1"]);
    std::fs::write(&file, "opensesame").unwrap();
    site.must(&["apply", "--yes"]);
    assert_ne!(primary(&site).0, before);
    site.must(&["destroy", "--yes"]);
}
