//! Primaries that hang: alive, holding all they hold, and answering nothing.

use rustix::process::Signal;

use super::{close, open, primary, processes, recovered, rounds, stack, written};
use crate::site::{Site, send, site_or_skip};

#[test]
fn a_primary_that_hangs_is_ended_and_its_volume_recovered() {
    let site = site_or_skip!("a_primary_that_hangs_is_ended_and_its_volume_recovered");
    hang(&site, 0);
}

#[test]
fn a_standby_takes_over_from_a_primary_that_hangs() {
    let site = site_or_skip!("a_standby_takes_over_from_a_primary_that_hangs");
    hang(&site, 1);
}

fn hang(site: &Site, replicas: u32) {
    site.write(&stack(4, replicas));
    site.must(&["apply", "--yes"]);
    let ledger = open(site);
    let times = rounds(1, 10);
    for _ in 0..times {
        let (before, pid) = primary(site);
        let frozen = processes(pid);
        assert!(frozen.len() > 3, "{frozen:?}");
        for pid in &frozen {
            send(*pid, Signal::STOP);
        }
        recovered(site, &[&before]);
        // Were one left, it could go on at any time and take what it had been sent.
        let left: Vec<&i32> = frozen.iter().filter(|pid| is_stopped(**pid)).collect();
        assert!(left.is_empty(), "{left:?} of {before} are there");
        written(&ledger);
    }
    let report = close(ledger, &format!("primaries that hang, {replicas} standbys"));
    assert!(report.told.len() <= 4 * times as usize, "{} errors", report.told.len());
    site.must(&["destroy", "--yes"]);
}

/// Whether there is a process of this number that is stopped.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}
