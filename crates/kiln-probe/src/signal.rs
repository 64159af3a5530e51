//! SIGTERM and SIGINT, waited for by a thread of their own.

use std::io;
use std::thread;

/// Calls `then` on the first SIGTERM or SIGINT.
///
/// To be called before any other thread starts: the signals are blocked in this thread and all
/// that it starts. Blocked signals also reach the first process of a pid namespace, to which the
/// kernel does not deliver those that would end it by default.
pub(crate) fn on_stop(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is valid storage, which sigemptyset then initialises.
    let mut stops: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live, and both signal numbers are valid.
    let blocked = unsafe {
        libc::sigemptyset(&raw mut stops);
        libc::sigaddset(&raw mut stops, libc::SIGTERM);
        libc::sigaddset(&raw mut stops, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const stops, std::ptr::null_mut())
    };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    let wait = move || {
        let mut signal = 0;
        // SAFETY: the set was initialised above, and `signal` is live.
        unsafe { libc::sigwait(&raw const stops, &raw mut signal) };
        then();
    };
    thread::Builder::new().spawn(wait).map(|_| ())
}
