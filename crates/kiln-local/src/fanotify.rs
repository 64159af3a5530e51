//! fanotify: the kernel tells of writes to single files, or to all of a file system, whatever path
//! or mount they come by.
//!
//! See `fanotify(7)`. Writes through a shared mapping are not told of.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;

/// Bytes of `struct fanotify_event_metadata`.
const EVENT_BYTES: usize = 24;

/// A queue of events.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    let opened = (libc::O_RDONLY | libc::O_CLOEXEC).unsigned_abs();
    // SAFETY: takes numbers, gives a descriptor.
    let queue = unsafe { libc::fanotify_init(flags, opened) };
    if queue < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(queue) })
}

/// Has the queue told of writes to a file, for as long as the file is there.
pub(crate) fn watch_writes(queue: &OwnedFd, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: without a path it is the descriptor's own file that is marked.
    let done = unsafe {
        libc::fanotify_mark(
            queue.as_raw_fd(),
            libc::FAN_MARK_ADD,
            libc::FAN_MODIFY,
            file.as_raw_fd(),
            ptr::null(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the queue told of writes to every file of the file system that `path` is on, by whatever
/// mount of it they come.
pub(crate) fn watch_file_system(queue: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string that ends in zero and outlives the call.
    let done = unsafe {
        libc::fanotify_mark(
            queue.as_raw_fd(),
            libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM,
            libc::FAN_MODIFY,
            libc::AT_FDCWD,
            path.as_ptr(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The files that were written to since this was last asked, by device and number.
pub(crate) fn written(queue: &OwnedFd) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    each(queue, |file, _| {
        found.extend(file.and_then(|file| file.metadata().ok()).map(|it| (it.dev(), it.ino())));
    });
    found
}

/// The paths of the files that were written to since this was last asked, and by which process each;
/// no path where the file could not be opened, or events were lost.
pub(crate) fn writers(queue: &OwnedFd) -> Vec<(Option<PathBuf>, i32)> {
    let mut found = Vec::new();
    each(queue, |file, writer| {
        let path = file.and_then(|file| {
            std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
        });
        found.push((path, writer));
    });
    found
}

/// Takes all events that there are: the file, and who has written to it.
fn each(queue: &OwnedFd, mut take: impl FnMut(Option<File>, i32)) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = rustix::io::read(queue, &mut buffer) {
        let mut events = &buffer[..length];
        while let Some(event) = events.get(..EVENT_BYTES) {
            // `event_len` is the first field, `fd` and `pid` are the last ones.
            let number = |at: usize| event.get(at..at + 4).and_then(|b| b.try_into().ok());
            let file = number(16).map(i32::from_ne_bytes).filter(|number| *number >= 0);
            // SAFETY: the kernel has opened it for this event; nobody else owns it.
            let file = file.map(|file| unsafe { File::from_raw_fd(file) });
            take(file, number(20).map_or(0, i32::from_ne_bytes));
            let next = number(0).map_or(0, u32::from_ne_bytes);
            let next = usize::try_from(next).unwrap_or(usize::MAX).max(EVENT_BYTES);
            events = events.get(next..).unwrap_or_default();
        }
    }
}
