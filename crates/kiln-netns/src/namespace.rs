//! A handle to one network namespace, and the way in and back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FsWord, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::Error;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// `statfs(2)` magic of the kernel's namespace files, from `linux/magic.h`.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// A network namespace that is kept alive, and can be entered, through this handle.
///
/// Cloning is cheap; the namespace may go when the last clone, socket, process and mount of it is
/// gone.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<OwnedFd>,
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
        Ok(Self::from(inside))
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, Error> {
        open(Path::new(OWN)).map(Self::from)
    }

    /// Makes a new namespace, which has nothing but a loopback interface that is down.
    pub fn create() -> Result<Self, Error> {
        let _back = Back::here()?;
        // SAFETY: a network namespace has no part in memory safety; `_back` restores this thread's.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|source| Error::Create { source: source.into() })?;
        Self::current()
    }

    /// Opens the namespace in which the process `pid` runs.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Runs `work` on this thread with the namespace as the thread's own, then comes home.
    ///
    /// Keep `work` short and free of waiting: what it opens stays in the namespace, what it starts
    /// (threads, processes) stays there for good.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let _back = Back::here()?;
        set_namespace(self.as_fd()).map_err(|source| Error::Enter { source: source.into() })?;
        Ok(work())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<OwnedFd> for Namespace {
    /// Takes an open namespace file.
    fn from(file: OwnedFd) -> Self {
        Self { file: Arc::new(file) }
    }
}

/// Brings the thread back where it was when this was made, also when the work inside unwinds.
struct Back {
    home: OwnedFd,
}

impl Back {
    fn here() -> Result<Self, Error> {
        Ok(Self { home: open(Path::new(OWN))? })
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = set_namespace(self.home.as_fd()) {
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
