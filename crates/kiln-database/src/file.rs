//! Files in a data directory, whose owner is an instance's user and none to be trusted: no link is
//! followed.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// The directory itself.
pub(crate) fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}

/// A directory in it.
pub(crate) fn open_in(directory: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

/// Whether there is a file of that name, of whatever sort.
pub(crate) fn exists(directory: &OwnedFd, name: &CStr) -> io::Result<bool> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes a file away, if it is there.
pub(crate) fn remove(directory: &OwnedFd, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes an empty file in the place of whatever is there; it belongs to the directory's owner.
pub(crate) fn make_empty(directory: &OwnedFd, name: &CStr) -> io::Result<()> {
    remove(directory, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
    let owner = rustix::fs::fstat(directory)?;
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    rustix::fs::fsync(&file)?;
    Ok(rustix::fs::fsync(directory)?)
}

/// The beginning of a file, at most so many bytes; none where it is not there or no file.
pub(crate) fn read(directory: &OwnedFd, name: &CStr, most: usize) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let mut bytes = vec![0; most];
    let count = rustix::io::read(&file, &mut bytes).ok()?;
    bytes.truncate(count);
    Some(bytes)
}
