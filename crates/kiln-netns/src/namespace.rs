//! A handle to one network namespace, and the way in and back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FsWord, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// The namespace of the process's first thread.
const HOME: &str = "/proc/self/ns/net";
/// `statfs(2)` magic of the kernel's namespace files, from `linux/magic.h`.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// A network namespace that is kept alive, and can be entered, through this handle.
///
/// Cloning is cheap; the namespace may go when the last clone, socket, process and mount of it is
/// gone.
#[derive(Clone, Debug)]
pub struct Namespace {
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    inside: OwnedFd,
    home: OwnedFd,
}

impl Namespace {
    /// Opens the namespace that is mounted on `path`, or that `path` names below `/proc`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let inside = open(path)?;
        let kind = rustix::fs::fstatfs(&inside)
            .map_err(|source| Error::Open { path: path.to_owned(), source: source.into() })?;
        if kind.f_type != NSFS_MAGIC {
            return Err(Error::NotANamespace { path: path.to_owned() });
        }
        Self::from_file(inside)
    }

    /// Opens the namespace in which the process `pid` runs.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Takes an open namespace file.
    pub fn from_file(inside: OwnedFd) -> Result<Self, Error> {
        let home = open(Path::new(HOME))?;
        Ok(Self { files: Arc::new(Files { inside, home }) })
    }

    /// Runs `work` on this thread with the namespace as the thread's own, then comes home.
    ///
    /// Keep `work` short and free of waiting: what it opens stays in the namespace, what it starts
    /// (threads, processes) stays there for good.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        set_namespace(self.files.inside.as_fd())
            .map_err(|source| Error::Enter { source: source.into() })?;
        let _back = Back { home: self.files.home.as_fd() };
        Ok(work())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.files.inside.as_fd()
    }
}

/// Brings the thread home when dropped, also when the work inside unwinds.
struct Back<'a> {
    home: BorrowedFd<'a>,
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Err(error) = set_namespace(self.home) {
            eprintln!("kiln: a thread cannot leave a network's namespace ({error}); aborting");
            std::process::abort();
        }
    }
}

fn set_namespace(namespace: BorrowedFd<'_>) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| Error::Open { path: path.to_owned(), source: source.into() })
}
