//! What is done while nobody guards.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::range::{Losses, Range};
use crate::site::{eventually, send, site_or_skip};

#[test]
fn what_is_done_while_the_guard_is_stopped_or_gone_is_found_afterwards() {
    let site = site_or_skip!("what_is_done_while_the_guard_is_stopped_or_gone_is_found_afterwards");
    let mut range = Range::new(site);
    range.row("a bound is raised, the guard being stopped", Losses::None, |range, victim| {
        let daemon = range.site.processes("serve");
        for pid in &daemon {
            send(*pid, Signal::STOP);
        }
        fs::write(range.group_file(victim, &["pids.max"]), "max").unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        for pid in &daemon {
            send(*pid, Signal::CONT);
        }
    });
    range.row("a bound is raised, the guard being gone", Losses::None, |range, victim| {
        range.site.signal("serve", Signal::KILL);
        fs::write(range.group_file(victim, &["pids.max"]), "max").unwrap();
        eventually("a daemon is there again", || range.site.run(&["status"]).status.success());
    });
    range.row("a bound is raised and set back", Losses::None, |range, victim| {
        let file = range.group_file(victim, &["pids.max"]);
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, "max").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        // It may have been replaced already.
        let _ = fs::write(&file, before);
    });
    range.row("what is known of its start is removed", Losses::None, |range, victim| {
        range.site.signal("serve", Signal::KILL);
        let kept = range.site.root().join("run/instances").join(&victim.id);
        fs::remove_file(kept.join("record.json")).unwrap();
        eventually("a daemon is there again", || range.site.run(&["status"]).status.success());
    });
}
