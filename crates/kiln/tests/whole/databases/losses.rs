//! Instances that are killed: primaries, standbys, and both.

use std::time::Duration;

use kiln_load::ledger::Ledger;

use super::{close, kill, open, primary, recovered, rounds, stack, standbys, written};
use crate::site::{Site, site_or_skip};

/// Clients that write at a time: as many may be told of an unknown end for each loss.
const CLIENTS: usize = 4;

#[test]
fn a_lost_primary_is_recovered_from_its_volume() {
    let site = site_or_skip!("a_lost_primary_is_recovered_from_its_volume");
    lose("primaries lost, without a standby", &site, 0, rounds(2, 25), |site, _| {
        let (id, pid) = primary(site);
        kill(pid);
        vec![id]
    });
}

#[test]
fn a_standby_takes_over_from_a_lost_primary() {
    let site = site_or_skip!("a_standby_takes_over_from_a_lost_primary");
    lose("primaries lost, one standby", &site, 1, rounds(2, 25), |site, _| {
        let (id, pid) = primary(site);
        kill(pid);
        vec![id]
    });
}

#[test]
fn standbys_that_are_lost_cost_no_error() {
    let site = site_or_skip!("standbys_that_are_lost_cost_no_error");
    let ledger = lose("standbys lost", &site, 1, rounds(2, 25), |site, _| {
        let (id, pid) = standbys(site).remove(0);
        kill(pid);
        vec![id]
    });
    assert_eq!(ledger, 0, "its primary serves on");
}

#[test]
fn primary_and_standby_are_lost_at_once() {
    let site = site_or_skip!("primary_and_standby_are_lost_at_once");
    lose("primary and standby lost", &site, 1, rounds(2, 25), |site, round| {
        let mut both = vec![primary(site), standbys(site).remove(0)];
        if round % 2 == 1 {
            both.reverse();
        }
        for (_, pid) in &both {
            kill(*pid);
        }
        both.into_iter().map(|(id, _)| id).collect()
    });
}

/// Loses instances again and again under writes; how many errors clients were told of.
fn lose(
    what: &str,
    site: &Site,
    replicas: u32,
    times: u32,
    hit: impl Fn(&Site, u32) -> Vec<String>,
) -> usize {
    site.write(&stack(4, replicas));
    site.must(&["apply", "--yes"]);
    let ledger: Ledger = open(site);
    for round in 0..times {
        let gone = hit(site, round);
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        recovered(site, &gone);
        written(&ledger);
        std::thread::sleep(Duration::from_millis(300));
    }
    let report = close(ledger, what);
    // What was under way, once for each client, is told to have an unknown end.
    let most = times as usize * CLIENTS;
    assert!(report.told.len() <= most, "{} errors for {times} losses", report.told.len());
    site.must(&["destroy", "--yes"]);
    report.told.len()
}
