//! The clock of the wall, as processes of a sandbox see it: it stands still.
//!
//! A time namespace does not cover `CLOCK_REALTIME`, so every process is traced (ptrace(2)). What
//! the system call filter hands to the tracer, `clock_gettime`, `gettimeofday` and `time`, is
//! answered here and not by the kernel. The vDSO, by which programs read the clock without a
//! system call, is hidden from each new program: its entry in the auxiliary vector, which the
//! kernel has just put on the stack, is turned into one to be ignored, and C libraries and
//! language runtimes then make system calls.
//!
//! System calls and registers are those of x86-64 Linux (`arch/x86/entry/syscalls/syscall_64.tbl`).

use std::io;
use std::ptr;

use libc::{c_int, c_long, c_void, pid_t, user_regs_struct};

/// Type of the auxiliary vector's entry with the address of the vDSO (linux/auxvec.h).
const AT_SYSINFO_EHDR: u64 = 33;
/// Type of an entry to be ignored.
const AT_IGNORE: u64 = 1;
/// End of the vector.
const AT_NULL: u64 = 0;
/// The most words of arguments and environment on a new program's stack that are passed over.
const MAX_STACK_WORDS: u64 = 1 << 20;
/// Size of a word, in bytes.
const WORD: u64 = 8;

/// Follows the process `pid`, and every process that comes of it; they end with this one.
pub(super) fn follow(pid: pid_t) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SEIZE, pid, 0, u64::from(options.cast_unsigned())).map(drop)
}

/// Lets a process go on that has stopped with `status`, after it was answered.
pub(super) fn go_on(pid: pid_t, status: c_int, clock: i64) {
    let signal = libc::WSTOPSIG(status);
    let request = match status >> 16 {
        libc::PTRACE_EVENT_SECCOMP => {
            // A process that was killed meanwhile needs no answer.
            let _ = answer(pid, clock);
            (libc::PTRACE_CONT, 0)
        }
        libc::PTRACE_EVENT_EXEC => {
            let _ = hide_vdso(pid);
            (libc::PTRACE_CONT, 0)
        }
        // It was stopped by a signal, and stays so until another continues it.
        libc::PTRACE_EVENT_STOP if is_stop(signal) => (libc::PTRACE_LISTEN, 0),
        0 => (libc::PTRACE_CONT, signal),
        _ => (libc::PTRACE_CONT, 0),
    };
    let _ = ptrace(request.0, pid, 0, u64::from(request.1.unsigned_abs()));
}

fn is_stop(signal: c_int) -> bool {
    [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// Answers the system call that the process is about to make.
fn answer(pid: pid_t, clock: i64) -> io::Result<()> {
    let mut registers = registers(pid)?;
    let now = clock.cast_unsigned();
    let written = match registers.orig_rax.cast_signed() {
        libc::SYS_clock_gettime => write(pid, registers.rsi, &[now, 0]),
        libc::SYS_gettimeofday => {
            write(pid, registers.rdi, &[now, 0]).and_then(|()| write(pid, registers.rsi, &[0]))
        }
        libc::SYS_time => write(pid, registers.rdi, &[now]),
        // Nothing else is handed to a tracer.
        _ => return Ok(()),
    };
    let time = registers.orig_rax.cast_signed() == libc::SYS_time;
    registers.rax = match written {
        Ok(()) if time => now,
        Ok(()) => 0,
        Err(_) => (-c_long::from(libc::EFAULT)).cast_unsigned(),
    };
    // No system call: the kernel makes none and leaves the result.
    registers.orig_rax = u64::MAX;
    set_registers(pid, &registers)
}

/// Takes the vDSO from a program that was just loaded.
fn hide_vdso(pid: pid_t) -> io::Result<()> {
    let start = registers(pid)?.rsp;
    // The number of arguments, the arguments, a zero; variables, a zero; the vector.
    let mut at = start + WORD * (read(pid, start)? + 2);
    let end = start + WORD * MAX_STACK_WORDS;
    while at < end && read(pid, at)? != 0 {
        at += WORD;
    }
    at += WORD;
    while at < end {
        match read(pid, at)? {
            AT_NULL => break,
            AT_SYSINFO_EHDR => write(pid, at, &[AT_IGNORE])?,
            _ => {}
        }
        at += 2 * WORD;
    }
    Ok(())
}

fn read(pid: pid_t, address: u64) -> io::Result<u64> {
    // SAFETY: clears the thread's own error number, as -1 may be a word's value.
    unsafe { *libc::__errno_location() = 0 };
    // SAFETY: reads the memory of the traced process; no memory of this one is touched.
    let word = unsafe {
        libc::ptrace(libc::PTRACE_PEEKDATA, pid, address as *mut c_void, ptr::null_mut::<c_void>())
    };
    let error = io::Error::last_os_error();
    if word == -1 && error.raw_os_error() != Some(0) {
        return Err(error);
    }
    Ok(word.cast_unsigned())
}

/// Writes words to where the process wants them; nothing where it wants none.
fn write(pid: pid_t, address: u64, words: &[u64]) -> io::Result<()> {
    if address == 0 {
        return Ok(());
    }
    for (at, word) in (address..).step_by(8).zip(words) {
        ptrace(libc::PTRACE_POKEDATA, pid, at, *word)?;
    }
    Ok(())
}

fn registers(pid: pid_t) -> io::Result<user_regs_struct> {
    // SAFETY: all bits zero are a value of this structure of numbers.
    let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETREGS, pid, 0, ptr::from_mut(&mut registers) as u64)?;
    Ok(registers)
}

fn set_registers(pid: pid_t, registers: &user_regs_struct) -> io::Result<()> {
    ptrace(libc::PTRACE_SETREGS, pid, 0, ptr::from_ref(registers) as u64).map(drop)
}

fn ptrace(request: libc::c_uint, pid: pid_t, address: u64, data: u64) -> io::Result<c_long> {
    // SAFETY: where a request reads or writes memory of this process, `data` is the address of a
    // live structure of the kind that it wants; all others take numbers.
    let result = unsafe { libc::ptrace(request, pid, address as *mut c_void, data as *mut c_void) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
