//! fanotify: the kernel tells of writes to single files, whatever path or mount they come by.
//!
//! See `fanotify(7)`. Writes through a shared mapping are not told of.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
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

/// The files that were written to since this was last asked, by device and number.
pub(crate) fn written(queue: &OwnedFd) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = rustix::io::read(queue, &mut buffer) {
        let mut events = &buffer[..length];
        while let Some(event) = events.get(..EVENT_BYTES) {
            // `event_len` is the first field, `fd` the last but one.
            let number = |at: usize| event.get(at..at + 4).and_then(|b| b.try_into().ok());
            if let Some(file) = number(16).map(i32::from_ne_bytes).filter(|number| *number >= 0) {
                // SAFETY: the kernel has opened it for this event; nobody else owns it.
                let file = unsafe { File::from_raw_fd(file) };
                found.extend(file.metadata().map(|meta| (meta.dev(), meta.ino())));
            }
            let next = number(0).map_or(0, u32::from_ne_bytes);
            let next = usize::try_from(next).unwrap_or(usize::MAX).max(EVENT_BYTES);
            events = events.get(next..).unwrap_or_default();
        }
    }
    found
}
