//! What is done to the control groups of an instance.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use super::range::{Losses, Range};
use crate::site::site_or_skip;

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A program of the machine that is ended when this is dropped.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have been ended with the instance.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_is_done_to_groups_is_found_and_answered() {
    let site = site_or_skip!("what_is_done_to_groups_is_found_and_answered");
    let mut range = Range::new(site);
    range.row("the bound on memory is raised", Losses::None, |range, victim| {
        let files = ["memory.memsw.limit_in_bytes", "memory.max"];
        write(&range.group_file(victim, &files), &(256 << 20).to_string());
    });
    range.row("the bound on processor time is raised", Losses::None, |range, victim| {
        let file = range.group_file(victim, &["cpu.cfs_quota_us", "cpu.max"]);
        let old = file.ends_with("cpu.cfs_quota_us");
        write(&file, if old { "90000" } else { "90000 100000" });
    });
    range.row("the bound on processes is removed", Losses::None, |range, victim| {
        write(&range.group_file(victim, &["pids.max"]), "max");
    });
    range.row("the main process is frozen", Losses::InFlight, |range, victim| {
        write(&range.group_file(victim, &["cgroup.freeze"]), "1");
    });
    range.row("the main process is moved out", Losses::None, |range, victim| {
        let bounds = range.group_file(victim, &["pids.max"]);
        // The group of all groups of the root's instances does not bound anything.
        let top = bounds.parent().and_then(Path::parent).and_then(Path::parent).unwrap();
        write(&top.join("cgroup.procs"), &victim.pid.to_string());
    });
    let mut sleepers = Vec::new();
    range.row("a process is moved in", Losses::None, |range, victim| {
        let sleeper = Sleeper(Command::new("sleep").arg("60").spawn().unwrap());
        let bounds = range.group_file(victim, &["pids.max"]);
        write(&bounds.with_file_name("cgroup.procs"), &sleeper.0.id().to_string());
        sleepers.push(sleeper);
    });
}
