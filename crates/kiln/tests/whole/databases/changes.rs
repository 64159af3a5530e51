//! Changes and rollbacks: a pause, and no error.

use std::time::Instant;

use kiln_load::ledger::spectrum;

use super::{close, open, primary, recovered, rounds, stack, written};
use crate::site::{Site, site_or_skip};

#[test]
fn changes_and_rollbacks_are_a_pause_and_no_error() {
    let site = site_or_skip!("changes_and_rollbacks_are_a_pause_and_no_error");
    change("changes and rollbacks", &site, 0, rounds(3, 100));
}

#[test]
fn changes_with_a_standby_leave_one_that_follows() {
    let site = site_or_skip!("changes_with_a_standby_leave_one_that_follows");
    change("changes and rollbacks with a standby", &site, 1, rounds(3, 50));
}

fn change(what: &str, site: &Site, replicas: u32, times: u32) {
    site.write(&stack(4, replicas));
    site.must(&["apply", "--yes"]);
    let ledger = open(site);
    let mut spans = Vec::new();
    for round in 0..times {
        let ((before, _), begun) = (primary(site), Instant::now());
        if round % 3 == 2 {
            site.must(&["rollback", "--yes"]);
        } else {
            site.write(&stack(5 + round, replicas));
            site.must(&["apply", "--yes"]);
        }
        assert_ne!(primary(site).0, before, "another instance takes the writes");
        recovered(site, &[&before]);
        // With a standby nothing is acknowledged unless that follows.
        written(&ledger);
        spans.push((begun, Instant::now()));
    }
    let report = close(ledger, what);
    assert_eq!(report.told.len(), 0);
    let pauses = spans.iter().map(|(from, to)| report.longest_between(*from, *to));
    println!("{what}: the longest that any client waited, of each\n{}", spectrum(pauses));
    site.must(&["destroy", "--yes"]);
}
