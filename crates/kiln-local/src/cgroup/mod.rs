//! Control groups: where they are on this machine, and one group per instance.
//!
//! Version 2 alone, version 1, and both side by side (hybrid) are supported: each controller is
//! used where the kernel has it. A root's groups stand under `kiln-<root id>` at the top of each
//! hierarchy in use, one child per instance. Groups of others are never touched.

mod group;
mod hierarchies;

pub use group::{Cgroups, Group};
pub use hierarchies::{Controller, Hierarchies, Place, V1};

use std::io;
use std::path::PathBuf;

/// A failure to make, bound, read or remove a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No control group file system is mounted.
    #[error("no control groups are mounted; mount them at /sys/fs/cgroup")]
    None,
    /// A bound was asked for that this kernel cannot enforce.
    #[error(
        "the {limit} limit needs the `{controller}` control group controller, which this machine \
         does not offer; enable it at boot, or remove the limit"
    )]
    Unsupported {
        /// The limit, in the user's words.
        limit: &'static str,
        /// The kernel's name of the controller.
        controller: Controller,
    },
    /// A file or directory of a control group could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Processes are left in a group after they were killed.
    #[error("processes {pids:?} in control group {} do not end", path.display())]
    Populated {
        /// The group's directory.
        path: PathBuf,
        /// The processes.
        pids: Vec<i32>,
    },
}

impl CgroupError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
