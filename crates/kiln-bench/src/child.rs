//! Running a program to its end: how long it took and how much memory it had at its height.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From before it was started until it was gone.
    pub(crate) wall: Duration,
    /// Processor time in user and system mode: hardly touched by what else the machine does.
    pub(crate) processor: Duration,
    /// The greatest resident set, in MiB.
    pub(crate) peak_mib: f64,
    /// How it ended.
    pub(crate) status: i32,
}

/// Runs `command`; what it writes goes to `output` (stdout) and, for a failure, to stderr.
pub(crate) fn run(command: &mut Command, output: &Path) -> Result<Run> {
    let errors = output.with_extension("errors");
    command.stdin(Stdio::null()).stdout(File::create(output)?).stderr(File::create(&errors)?);
    let begin = Instant::now();
    let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `pid` is a child of this process that nobody else waits for (`child` is only
    // dropped), and both pointers are to live memory of the types that wait4(2) writes.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let wall = begin.elapsed();
    if waited != pid {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: all-zero bytes are a valid rusage, and wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    if !libc::WIFEXITED(status) {
        return Err(format!("{command:?} was killed").into());
    }
    let processor = time(usage.ru_utime) + time(usage.ru_stime);
    let kib = f64::from(i32::try_from(usage.ru_maxrss).unwrap_or(i32::MAX));
    Ok(Run { wall, processor, peak_mib: kib / 1024.0, status: libc::WEXITSTATUS(status) })
}

fn time(value: libc::timeval) -> Duration {
    let seconds = u64::try_from(value.tv_sec).unwrap_or(0);
    let micros = u64::try_from(value.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// The same, where any other end than with `expected` is an error.
pub(crate) fn expect(command: &mut Command, output: &Path, expected: i32) -> Result<Run> {
    let run = run(command, output)?;
    if run.status == expected {
        return Ok(run);
    }
    let said = std::fs::read_to_string(output.with_extension("errors")).unwrap_or_default();
    let said: String = said.chars().take(2000).collect();
    Err(format!("{command:?} ended with {}, not {expected}:\n{said}", run.status).into())
}
