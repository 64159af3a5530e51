//! Ways out of a container, as they are publicly known, each tried in a process of its own.
//!
//! An attempt that comes through says what it has got; one that does not, the kernel's refusal.
//! None does harm where it comes through: what it would write is what stands there or nothing, what
//! it makes is taken away again.

mod calls;
mod files;
mod others;

use std::io;

use crate::errno;

/// What came of an attempt: what was got, or what refused it.
pub(crate) type Outcome = io::Result<String>;

/// An attempt, by name.
pub(crate) type Attempt = (&'static str, fn() -> Outcome);

/// Tries all: a line for each, its name, a tab, and `OUT: WHAT` or the error's name.
pub(crate) fn all() {
    for (name, attempt) in files::ATTEMPTS.iter().chain(calls::ATTEMPTS).chain(others::ATTEMPTS) {
        // SAFETY: this process has one thread, so the child may do what it likes.
        match unsafe { libc::fork() } {
            0 => {
                let told = match attempt() {
                    Ok(got) => format!("OUT: {}", got.replace('\n', " ")),
                    Err(error) => errno::of(&error),
                };
                println!("{name}\t{told}");
                std::process::exit(0);
            }
            -1 => println!("{name}\tnot tried: {}", errno::of(&io::Error::last_os_error())),
            child => await_end(name, child),
        }
    }
}

fn await_end(name: &str, child: i32) {
    let mut status = 0;
    // SAFETY: the pid is that of a child that has not been waited for; `status` is live.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) {
        println!("{name}\tkilled by signal {}", libc::WTERMSIG(status));
    }
}

/// What a system call returned.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Nothing came of it, for a reason that is no error of the kernel's.
fn nothing(why: &str) -> Outcome {
    Err(io::Error::other(why.to_owned()))
}
