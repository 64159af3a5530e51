//! The pipes that carry an instance's output.
//!
//! The instance holds each pipe open for reading and writing, so that it can always write: while
//! no launcher is there to read, it is not ended by SIGPIPE but waits when the pipe is full, and
//! the next launcher opens the pipe again through /proc.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::time::SystemTime;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::logs::{LogWriter, Stream};

/// How much of one pipe is read before others get their turn, in bytes.
const TURN_BYTES: usize = 64 << 10;

/// Both ends of a pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    /// The launcher's; reading never waits.
    pub(super) read: OwnedFd,
    /// The instance's.
    pub(super) write: OwnedFd,
}

/// A pipe that belongs to the given user of the host, who can open it again by its name in /dev.
pub(super) fn open(uid: u32, gid: u32) -> io::Result<Pipe> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fchown(&write, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    let both = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Pipe { read, write: both })
}

/// Opens the pipe that the running process `pid` has as descriptor `number`, if it is one.
pub(super) fn reopen(pid: i32, number: u32) -> io::Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/fd/{number}");
    if !std::fs::metadata(&path)?.file_type().is_fifo() {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Some(rustix::fs::open(path, flags, Mode::empty())?))
}

/// What a turn of reading has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing more for now, or enough for this turn.
    Open,
    /// Every writer has closed the pipe.
    Closed,
}

/// Moves what is in the pipe to the log, up to a bound.
pub(super) fn pump(pipe: &OwnedFd, stream: Stream, log: &mut LogWriter) -> Turn {
    let mut buffer = [0; 8 << 10];
    let mut moved = 0;
    while moved < TURN_BYTES {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => return Turn::Closed,
            Ok(count) => {
                moved += count;
                if let Err(error) = log.write(stream, SystemTime::now(), &buffer[..count]) {
                    // The instance goes on without its log; the launcher's own log says so.
                    eprintln!("launcher: cannot write a log: {error}");
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Turn::Open,
            Err(_) => return Turn::Closed,
        }
    }
    Turn::Open
}

/// Moves all that is left after the writers have ended.
pub(super) fn drain(pipe: &OwnedFd, stream: Stream, log: &mut LogWriter) {
    let Ok(capacity) = rustix::pipe::fcntl_getpipe_size(pipe) else { return };
    for _ in 0..=capacity.div_ceil(TURN_BYTES) {
        if pump(pipe, stream, log) == Turn::Closed {
            return;
        }
    }
}
