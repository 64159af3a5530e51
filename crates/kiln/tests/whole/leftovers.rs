//! After `destroy` the machine is as it was before `apply`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::replace::SHOP;
use crate::site::{Site, eventually, site_or_skip};

#[test]
fn destroy_leaves_nothing_behind() {
    let site = site_or_skip!("destroy_leaves_nothing_behind");
    site.write(&SHOP.replace(
        "network \"front\" { cidr = var.cidr }",
        "network \"front\" {\n  cidr = var.cidr\n  egress = [\"192.0.2.0/24\"]\n}",
    ));
    site.must(&["apply", "--yes"]);
    let running = traces(&site);
    for kind in ["process", "mount", "cgroup", "interface"] {
        assert!(
            running.iter().any(|t| t.starts_with(kind)),
            "no {kind} while it runs: {running:?}"
        );
    }
    site.must(&["destroy", "--yes"]);
    eventually("only the daemon is left", || {
        let left = traces(&site);
        left.iter().all(|trace| trace.contains("serve"))
    });
    assert_eq!(site.processes("serve").len(), 1, "the daemon stays");
    site.signal("serve", Signal::TERM);
    assert_eq!(traces(&site), BTreeSet::new());
    let kept: BTreeSet<String> = files(&site.root())
        .into_iter()
        .filter(|path| !["store/", "images/", "cache/"].iter().any(|kept| path.starts_with(kept)))
        .collect();
    let harmless = |path: &String| {
        let extension = Path::new(path).extension().and_then(std::ffi::OsStr::to_str);
        path == "id" || matches!(extension, Some("lock" | "start" | "log"))
    };
    let strange: Vec<&String> = kept.iter().filter(|path| !harmless(path)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// Everything on the machine that carries the root's path or id.
fn traces(site: &Site) -> BTreeSet<String> {
    let root = site.root().to_string_lossy().into_owned();
    let id = fs::read_to_string(site.root().join("id")).unwrap().trim().to_owned();
    let mut traces = BTreeSet::new();
    for role in ["serve", "gateway", "launcher"] {
        traces.extend(site.processes(role).iter().map(|pid| format!("process {role} {pid}")));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = mounts.lines().filter(|line| line.contains(&root));
    traces.extend(ours.map(|line| format!("mount {line}")));
    for entry in walk(Path::new("/sys/fs/cgroup"), 3) {
        if entry.contains(&id) {
            traces.insert(format!("cgroup {entry}"));
        }
    }
    for entry in fs::read_dir("/sys/class/net").unwrap().flatten() {
        let alias = fs::read_to_string(entry.path().join("ifalias")).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().into_owned();
        if alias.contains(&id) || name.contains(&id) {
            traces.insert(format!("interface {name}"));
        }
    }
    // Where the command is not installed, the interface that goes with a table still tells.
    if let Ok(tables) = Command::new("nft").args(["list", "tables"]).output() {
        let text = String::from_utf8_lossy(&tables.stdout).into_owned();
        let ours = text.lines().filter(|line| line.contains(&id));
        traces.extend(ours.map(|line| format!("rules {line}")));
    }
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(&root) {
            traces.insert(format!("loop device {file}"));
        }
    }
    traces
}

fn walk(directory: &Path, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.push(entry.path().to_string_lossy().into_owned());
            if depth > 1 {
                found.extend(walk(&entry.path(), depth - 1));
            }
        }
    }
    found
}

/// Every file below a directory, relative to it.
fn files(directory: &Path) -> Vec<String> {
    fn collect(base: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                collect(base, &entry.path(), found);
            } else if let Ok(path) = entry.path().strip_prefix(base) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    collect(directory, directory, &mut found);
    found
}
