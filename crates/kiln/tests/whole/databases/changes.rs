//! Changes and rollbacks: a pause, and no error.

use std::time::Instant;

use kiln_load::ledger::spectrum;

use super::{close, open, primary, rounds, stack};
use crate::site::site_or_skip;

#[test]
fn changes_and_rollbacks_are_a_pause_and_no_error() {
    let site = site_or_skip!("changes_and_rollbacks_are_a_pause_and_no_error");
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    let ledger = open(&site);
    let mut spans = Vec::new();
    for round in 0..rounds(3, 100) {
        let ((before, _), begun) = (primary(&site), Instant::now());
        if round % 3 == 2 {
            site.must(&["rollback", "--yes"]);
        } else {
            site.write(&stack(5 + round, 0));
            site.must(&["apply", "--yes"]);
        }
        assert_ne!(primary(&site).0, before, "another instance takes the writes");
        spans.push((begun, Instant::now()));
    }
    let report = close(ledger, "changes and rollbacks");
    assert_eq!(report.told.len(), 0);
    let pauses = spans.iter().map(|(from, to)| report.longest_between(*from, *to));
    println!("the longest that any client waited, of each change\n{}", spectrum(pauses));
    site.must(&["destroy", "--yes"]);
}
