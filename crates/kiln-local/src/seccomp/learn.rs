//! Learning a profile: which system calls the processes of an instance make.
//!
//! The instance runs under the default profile, whose filter tells a listener of each call
//! (`seccomp_unotify(2)`) and goes on when that says so. The listener is a descriptor that the
//! program has inherited; it is taken from there (`pidfd_getfd`), so that nothing of Kiln is in the
//! instance. Until then its first call waits.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::narrow;

/// `struct seccomp_notif` of linux/seccomp.h.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction_pointer: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`: the call is made as it is.
const CONTINUE: u32 = 1;

/// Gathers the system calls of instances. Clones gather together.
#[derive(Debug, Clone, Default)]
pub struct Learner {
    calls: Arc<Mutex<BTreeSet<u32>>>,
}

impl Learner {
    /// Listens to the instance with the main process `pid`, which was started to be learned from,
    /// until its last process ends.
    pub fn attach(&self, pid: i32) -> io::Result<()> {
        let listener = listener(pid)?;
        let learner = self.clone();
        thread::Builder::new()
            .name("learner".to_owned())
            .spawn(move || learner.listen(&listener))?;
        Ok(())
    }

    /// The names of the calls that were made, with those that every program needs.
    pub fn names(&self) -> BTreeSet<String> {
        narrow::names_of(&self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn listen(&self, listener: &OwnedFd) {
        loop {
            let mut polled = [PollFd::new(listener, PollFlags::IN)];
            if poll(&mut polled, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
                return;
            }
            let events = polled[0].revents();
            if !events.contains(PollFlags::IN) {
                if events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                    return;
                }
                continue;
            }
            let mut told = Notification::default();
            // SAFETY: the structure is live, zeroed, and of the size that the request names.
            if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut told) } < 0 {
                // Its process has ended meanwhile, or a signal came.
                continue;
            }
            if let Ok(number) = u32::try_from(told.number) {
                self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
            }
            let response = Response { id: told.id, value: 0, error: 0, flags: CONTINUE };
            // SAFETY: as above. That its process has ended is no error.
            unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const response) };
        }
    }
}

/// The listener that a process has inherited.
fn listener(pid: i32) -> io::Result<OwnedFd> {
    let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number = entry.file_name().to_string_lossy().parse::<ForeignRawFd>();
        if let (Ok(number), "anon_inode:seccomp notify") = (number, &*target.to_string_lossy()) {
            return Ok(pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "it has no listener: it ended, or closed it"))
}
