//! Things that a well-made instance bounds or refuses: writing, forking, memory, processor time.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::errno;

/// Memory that [`eat`] holds for good.
static EATEN: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The name of the host, which is the instance's.
pub(crate) fn host_name() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the pointer and length are those of a live buffer; its last byte stays zero.
    let done = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    if done != 0 {
        return errno::of(&io::Error::last_os_error());
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// Writes `bytes` zeros to the file at `path`, made where it does not exist.
pub(crate) fn write(path: &str, bytes: u64) -> String {
    let written = OpenOptions::new().write(true).create(true).truncate(true).open(path).and_then(
        |mut file| {
            io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
            file.flush()
        },
    );
    written.map_or_else(|error| errno::of(&error), |()| "ok".to_owned())
}

/// Has `count` children at once, if it can, then ends them all.
pub(crate) fn fork(count: u64) -> String {
    let mut children = Vec::new();
    let mut refused = None;
    for _ in 0..count {
        // SAFETY: the child calls nothing but pause(2) and _exit(2), which are safe after a fork
        // of a process with threads.
        match unsafe { libc::fork() } {
            0 => unsafe {
                libc::pause();
                libc::_exit(0)
            },
            -1 => {
                refused = Some(errno::of(&io::Error::last_os_error()));
                break;
            }
            child => children.push(child),
        }
    }
    for child in &children {
        // SAFETY: both calls take the pid of a child that has not been waited for yet.
        unsafe {
            libc::kill(*child, libc::SIGKILL);
            libc::waitpid(*child, std::ptr::null_mut(), 0);
        }
    }
    let forked = format!("{} of {count}", children.len());
    refused.map_or(forked.clone(), |name| format!("{forked}: {name}"))
}

/// Takes memory and never gives it back.
pub(crate) fn hoard(kibibytes: u64) {
    let length = usize::try_from(kibibytes << 10).unwrap_or(0);
    if let Ok(mut eaten) = EATEN.lock() {
        eaten.push(vec![0xA5; length]);
    }
}

/// Takes `megabytes` of memory into use, and keeps them.
pub(crate) fn eat(megabytes: u64) -> String {
    let Some(length) = megabytes.checked_mul(1 << 20).and_then(|bytes| usize::try_from(bytes).ok())
    else {
        return "ENOMEM".to_owned();
    };
    let mut meal = Vec::new();
    if meal.try_reserve_exact(length).is_err() {
        return "ENOMEM".to_owned();
    }
    meal.resize(length, 0xA5);
    if let Ok(mut eaten) = EATEN.lock() {
        eaten.push(meal);
    }
    "ok".to_owned()
}

/// Takes `megabytes` more into use every `milliseconds`, in the background, until it is ended.
pub(crate) fn leak(megabytes: u64, milliseconds: u64) {
    thread::spawn(move || {
        loop {
            eat(megabytes);
            thread::sleep(Duration::from_millis(milliseconds));
        }
    });
}

/// Ends by a fault, which spares not even process 1 of a namespace.
pub(crate) fn crash() -> ! {
    let nowhere = std::ptr::without_provenance::<u8>(8);
    loop {
        // SAFETY: there is none: the first page is never mapped, and the kernel ends the process.
        unsafe { nowhere.read_volatile() };
    }
}

/// Keeps one processor busy for `milliseconds`, in the background.
pub(crate) fn spin(milliseconds: u64) -> String {
    let until = Instant::now() + Duration::from_millis(milliseconds.min(3_600_000));
    let work = move || {
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    };
    match thread::Builder::new().spawn(work) {
        Ok(_) => "ok".to_owned(),
        Err(error) => errno::of(&error),
    }
}
