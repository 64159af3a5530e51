//! What an instance is right after its start, as only the kernel can say it: the numbers of its
//! namespaces, its mounts, the file that it executes.
//!
//! The launcher takes it when the program has been executed, before anybody hears that it runs, and
//! writes it once to `ROOT/run/instances/<instance>/baseline.json`. It is what a guard compares
//! with, also one that is started later: what is found then is never taken for what should be.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record;

/// The kinds of namespaces that are compared, by the kernel's names.
pub(crate) const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What an instance is right after its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// When its main process was started: clock ticks since the boot.
    pub started_ticks: u64,
    /// The numbers of its namespaces, by kind.
    pub namespaces: BTreeMap<String, u64>,
    /// The device of its root filesystem.
    pub root_device: u64,
    /// Device and number of the file that its main process executed first.
    pub executable: (u64, u64),
    /// `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
    pub mounts: String,
}

impl Baseline {
    /// Looks at the process `pid`, the main one of an instance.
    pub(crate) fn take(pid: i32) -> io::Result<Self> {
        let own = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let main = super::observe::process(pid).ok_or_else(gone)?;
        let namespaces =
            NAMESPACES.iter().filter_map(|kind| Some(((*kind).to_owned(), namespace(pid, kind)?)));
        let executable = fs::metadata(own("exe"))?;
        Ok(Self {
            started_ticks: main.started_ticks,
            namespaces: namespaces.collect(),
            root_device: fs::metadata(own("root"))?.dev(),
            executable: (executable.dev(), executable.ino()),
            mounts: fs::read_to_string(own("mountinfo"))?,
        })
    }

    /// Writes it down for `instance`.
    pub(crate) fn write(&self, root: &Path, instance: &str) -> io::Result<()> {
        record::write_json(&path(root, instance), self)
    }

    /// Reads that of `instance`, if there is one.
    pub fn read(root: &Path, instance: &str) -> io::Result<Option<Self>> {
        record::read_json(&path(root, instance))
    }
}

fn path(root: &Path, instance: &str) -> PathBuf {
    record::directory(root, instance).join("baseline.json")
}

/// The number of a namespace of a process; none where the process is gone, or the kernel has no
/// such kind.
pub(crate) fn namespace(pid: i32, kind: &str) -> Option<u64> {
    let link =
        rustix::fs::readlink(format!("/proc/{pid}/ns/{kind}"), Vec::with_capacity(32)).ok()?;
    // `mnt:[4026531841]`
    let text = link.to_str().ok()?;
    text.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_as_the_kernel_has_it() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let baseline = Baseline::take(pid).unwrap();
        assert_eq!(baseline.namespaces.len(), NAMESPACES.len());
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        assert_eq!(own.to_str().unwrap(), format!("mnt:[{}]", baseline.namespaces["mnt"]));
        assert!(baseline.mounts.lines().count() > 0);
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(record::directory(directory.path(), "web-1")).unwrap();
        assert_eq!(Baseline::read(directory.path(), "web-1").unwrap(), None);
        baseline.write(directory.path(), "web-1").unwrap();
        assert_eq!(Baseline::read(directory.path(), "web-1").unwrap(), Some(baseline));
    }
}
