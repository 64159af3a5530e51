//! A tree as a directory on this machine, and back.
//!
//! [`Laid::out`] writes a tree into a directory: owners, modes, times, extended attributes, hard
//! links. [`Laid::gather`] reads the directory after a program has worked on it. What the program
//! has not touched comes back as it was, told by inode and time of change, which no program can
//! set; what it has touched is read anew, and a time later than the given one becomes that one, so
//! that the moment of the build is in no image.
//!
//! Nothing is ever followed: neither a link in the tree while it is written, nor one that the
//! program has left while it is read. The directory must be out of reach for others.

mod gather;
mod lay;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::tree::{NodeId, ShownPath, TreeError};

pub use gather::Gathered;

/// A directory that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The kernel has refused something.
    #[error("can't {action} {path} in the work directory")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path from the image's root.
        path: ShownPath,
        /// Why.
        source: io::Error,
    },
    /// Something that no image can hold.
    #[error("{path} is a {kind}, which no image can hold; let the program remove it")]
    Kind {
        /// The path from the image's root.
        path: ShownPath,
        /// What it is.
        kind: &'static str,
    },
    /// What was found does not fit into a tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl DirectoryError {
    fn io<E: Into<io::Error>>(action: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { action, path: path.into(), source: error.into() }
    }
}

/// A tree that stands as a directory.
#[derive(Debug)]
pub struct Laid {
    /// The directory.
    path: PathBuf,
    root: OwnedFd,
    /// What was written, by inode.
    written: HashMap<u64, Written>,
    /// Nothing that is changed from now on has a time of change before this.
    since: Instant,
}

/// One inode as it was written.
#[derive(Debug, Clone, Copy)]
struct Written {
    id: NodeId,
    changed: Instant,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Instant(i64, i64);

impl Instant {
    /// The time of change of an inode.
    fn of(stat: &rustix::fs::Stat) -> Self {
        // The types differ between architectures.
        Self(stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
