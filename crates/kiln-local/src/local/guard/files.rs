//! Writes to the files by which the kernel is told about control groups and networks.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::cgroup::Hierarchies;
use crate::fanotify;
use crate::guard::Membership;

/// What somebody has written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// A file of an instance's group.
    Group {
        /// The instance.
        instance: String,
        /// Whether the file is one by which processes are moved.
        moves: bool,
    },
    /// A file of another group by which processes are moved.
    Elsewhere,
    /// A setting of some network.
    Setting,
    /// What it was is not known.
    Unknown,
}

/// See the module.
pub(super) struct Files {
    pub(super) queue: OwnedFd,
    /// Whether settings are told of.
    pub(super) settings: io::Result<()>,
    /// Whether control groups are told of.
    pub(super) groups: io::Result<()>,
}

impl Files {
    /// Watches the file systems of control groups and of the machine's own /proc.
    pub(super) fn watch(hierarchies: &Hierarchies) -> io::Result<Self> {
        let queue = fanotify::open()?;
        let mut tops = hierarchies.v1().map(|v1| v1.top.as_path()).chain(hierarchies.unified());
        let groups = tops.try_for_each(|top| fanotify::watch_file_system(&queue, top));
        let settings = fanotify::watch_file_system(&queue, Path::new("/proc"));
        Ok(Self { queue, settings, groups })
    }

    /// What was written to since this was last asked, by others than `own`.
    pub(super) fn hear(&self, membership: &Membership, own: &[i32]) -> Vec<Written> {
        let writers = fanotify::writers(&self.queue).into_iter();
        let foreign = writers.filter(|(_, writer)| !own.contains(writer));
        foreign.filter_map(|(path, _)| classify(membership, path.as_deref())).collect()
    }
}

fn classify(membership: &Membership, path: Option<&Path>) -> Option<Written> {
    let Some(path) = path.and_then(Path::to_str) else { return Some(Written::Unknown) };
    let name = path.rsplit('/').next().unwrap_or_default();
    let moves = ["cgroup.procs", "cgroup.threads", "tasks"].contains(&name);
    if let Some((instance, _)) = membership.instance_on(path) {
        return Some(Written::Group { instance: instance.to_owned(), moves });
    }
    if path.starts_with("/proc/") {
        return path.starts_with("/proc/sys/net/").then_some(Written::Setting);
    }
    moves.then_some(Written::Elsewhere)
}
