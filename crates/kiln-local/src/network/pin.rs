//! Where namespaces are pinned: a mount on a file below `ROOT/run/net` keeps one alive.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use kiln_netns::Namespace;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::error::Error;

/// Pins the namespace of `network` at `path`, which must not exist yet.
pub(super) fn pin(namespace: &Namespace, network: &str, path: &Path) -> Result<(), Error> {
    let fail = |what, source| Error::Pin { what, path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|source| fail("make the directory of", source))?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => {}
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists { network: network.to_owned(), path: path.to_owned() });
        }
        Err(source) => return Err(fail("make", source)),
    }
    let source = format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd());
    mount_bind(source, path).map_err(|source| fail("pin a namespace at", source.into()))
}

/// Takes away whatever is mounted at `path`, and the file. To do so twice is no error.
///
/// Removing the file also detaches the copies of the mount that other mount namespaces got when
/// they were made, which would else keep the network alive.
pub(super) fn unpin(path: &Path) -> Result<(), Error> {
    let fail = |what, source| Error::Pin { what, path: path.to_owned(), source };
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => break,
            Err(source) => return Err(fail("unmount", source.into())),
        }
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(fail("remove", source)),
        _ => Ok(()),
    }
}

/// What is pinned below `directory`: the files there, whether mounted on or half made.
pub(super) fn pinned(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |source| Error::Pin { what: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(fail)?;
    paths.sort();
    Ok(paths)
}
