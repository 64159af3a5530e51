//! Disks that are full: it is said, nothing acknowledged is lost, and it goes on when there is room.

use std::ffi::CString;
use std::time::{Duration, Instant};

use kiln_load::ledger::{Ledger, Plan};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tempfile::TempDir;

use super::{PATIENCE, close, parameters, primary, rounds, stack, written};
use crate::site::{Site, eventually, told};

/// What a disk has so that a database of the test fits, and a little more, in MiB.
const SMALL: u64 = 160;
/// The same for two.
const LARGE: u64 = 640;

/// A site whose volumes are on a disk of their own.
struct Small {
    site: Site,
    /// Around the site's directory, as a disk can't be taken away with what it is mounted on.
    _around: TempDir,
}

impl Small {
    fn new(mib: u64) -> Result<Self, String> {
        let around = TempDir::new().map_err(|error| error.to_string())?;
        let small = Self { site: Site::below(around.path())?, _around: around };
        let at = small.volumes();
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        let size = size(mib);
        mount("tmpfs", &at, "tmpfs", MountFlags::empty(), size.as_c_str())
            .map_err(|error| format!("no tmpfs can be mounted: {error}"))?;
        Ok(small)
    }

    fn volumes(&self) -> std::path::PathBuf {
        self.site.root().join("volumes")
    }

    fn resize(&self, mib: u64) {
        let size = size(mib);
        mount_remount(self.volumes(), MountFlags::empty(), size.as_c_str()).unwrap();
    }

    /// How many MiB are in use.
    fn used(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.volumes()).unwrap();
        ((disk.f_blocks - disk.f_bfree) * disk.f_frsize) >> 20
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.site.run(&["destroy", "--yes"]);
        let _ = unmount(self.volumes(), UnmountFlags::DETACH);
    }
}

fn size(mib: u64) -> CString {
    CString::new(format!("size={mib}m,mode=700")).unwrap()
}

macro_rules! small_or_skip {
    ($name:literal, $mib:expr) => {
        match Small::new($mib) {
            Ok(small) => small,
            Err(reason) => {
                println!("skipped: {}: {reason}", $name);
                return;
            }
        }
    };
}

/// A stack whose database keeps little of its log.
fn small_stack(work_mem: u32) -> String {
    stack(work_mem, 0).replace("replicas =", "size = \"128MiB\"\n  replicas =")
}

#[test]
fn a_disk_that_fills_under_writes_loses_nothing() {
    let small = small_or_skip!("a_disk_that_fills_under_writes_loses_nothing", SMALL);
    let site = &small.site;
    site.write(&small_stack(4));
    site.must(&["apply", "--yes"]);
    let plan = Plan { ballast: 64 << 10, ..Plan::at(parameters(site)) };
    let ledger = Ledger::open(plan).unwrap();
    for round in 0..rounds(1, 10) {
        written(&ledger);
        let before = ledger.told().len();
        fill(&ledger, before);
        eventually("it to be said", || said(site));
        small.resize(small.used() + SMALL * u64::from(round + 1));
        written(&ledger);
        eventually("it to be over", || site.status()["healthy"] == true);
    }
    let report = ledger_closed(ledger);
    // Of the full disk, or that the instance is gone: it ends where its log finds no room.
    assert!(!report.is_empty(), "clients are told");
    site.must(&["destroy", "--yes"]);
}

/// Waits until clients are told of errors, and are not acknowledged any row for two seconds.
fn fill(ledger: &Ledger, before: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = ledger.acknowledged();
        std::thread::sleep(Duration::from_secs(2));
        if ledger.told().len() > before && ledger.acknowledged() == rows {
            return;
        }
        assert!(Instant::now() < deadline, "the disk does not fill: {rows} rows");
    }
}

/// Whether somebody who looks is told that there is no room.
fn said(site: &Site) -> bool {
    let status = told(&site.run(&["status"]));
    let events = told(&site.run(&["events"]));
    status.contains("No space left") || events.contains("No space left")
}

/// What clients were told; nothing that must never be has been.
fn ledger_closed(ledger: Ledger) -> Vec<String> {
    let report = ledger.close().unwrap();
    assert_eq!(report.violations, Vec::<String>::new());
    println!("a full disk: {} rows acknowledged, none lost", report.acknowledged);
    report.told
}

#[test]
fn a_change_that_finds_no_room_leaves_the_old_one_serving() {
    let small = small_or_skip!("a_change_that_finds_no_room_leaves_the_old_one_serving", SMALL);
    let site = &small.site;
    site.write(&small_stack(4));
    site.must(&["apply", "--yes"]);
    let ledger =
        Ledger::open(Plan { pause: Duration::from_millis(5), ..Plan::at(parameters(site)) });
    let ledger = ledger.unwrap();
    let (before, _) = primary(site);
    for round in 0..rounds(1, 10) {
        // Less than a copy takes.
        small.resize(small.used() + 24);
        site.write(&small_stack(5 + round));
        let refused = site.run(&["apply", "--yes"]);
        assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
        let text = told(&refused);
        assert!(text.contains("are free on the disk of") && text.contains("--root DIR"), "{text}");
        assert_eq!(primary(site).0, before, "the old one takes the writes");
        written(&ledger);
    }
    small.resize(LARGE);
    site.must(&["apply", "--yes"]);
    assert_ne!(primary(site).0, before);
    let report = close(ledger, "changes without room for the copy");
    assert_eq!(report.told.len(), 0);
    site.must(&["destroy", "--yes"]);
}
