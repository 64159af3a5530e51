//! From rules per system call to a classic BPF program, and its installation.

use std::collections::BTreeMap;
use std::io;
use std::ptr;

use libc::sock_filter;

/// What happens to a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// It is made if the low half of its first argument, masked, is one of the values; else it
    /// fails with `EPERM`. All uses are of 32-bit arguments.
    FirstArgument {
        /// Which bits count.
        mask: u32,
        /// The values that are allowed.
        values: Vec<u32>,
    },
    /// Whoever holds the filter's listener is told and lets it be made.
    Notify,
    /// The process's tracer answers it.
    Trace,
    /// The process's tracer answers it if the low half of its first argument is one of these;
    /// else it is made.
    TraceFirstArgument(Vec<u32>),
}

/// The error of a refused call, `EPERM` of asm-generic/errno-base.h.
const EPERM: u16 = 1;

/// A BPF program.
#[derive(Debug)]
pub(super) struct Program(Vec<sock_filter>);

// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

// Instructions of linux/bpf_common.h, as 16-bit codes.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_USER_NOTIF: u32 = 0x7fc0_0000;
const RETURN_TRACE: u32 = 0x7ff0_0000;
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;

/// `AUDIT_ARCH_*` of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Compiles `rules`, by system call number. What they do not name fails with `EPERM`; another
/// architecture's calls end the process.
pub(super) fn compile(rules: &BTreeMap<u32, Verdict>) -> Program {
    let mut program = vec![
        step(LOAD, OFFSET_ARCHITECTURE),
        branch(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        step(RETURN, RETURN_KILL_PROCESS),
        step(LOAD, OFFSET_NUMBER),
    ];
    program.extend(search(&segments(rules)));
    Program(program)
}

/// The whole range of numbers cut into pieces with one verdict each, by their first number.
fn segments(rules: &BTreeMap<u32, Verdict>) -> Vec<(u32, Verdict)> {
    let refused = || Verdict::Errno(EPERM);
    let mut segments = vec![(0, refused())];
    let mut push = |start: u32, verdict: Verdict| match segments.last_mut() {
        Some((_, last)) if *last == verdict => {}
        Some(last) if last.0 == start => last.1 = verdict,
        _ => segments.push((start, verdict)),
    };
    let mut next = 0;
    for (&number, verdict) in rules {
        if number > next {
            push(next, refused());
        }
        push(number, verdict.clone());
        next = number + 1;
    }
    push(next, refused());
    segments
}

fn search(segments: &[(u32, Verdict)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = segments {
        return decide(verdict);
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let below = search(low);
    let mut code = match u8::try_from(below.len()) {
        Ok(skip) => vec![branch(JUMP_AT_LEAST, high[0].0, skip, 0)],
        // Conditional jumps reach 255 steps, unconditional ones any distance.
        Err(_) => vec![
            branch(JUMP_AT_LEAST, high[0].0, 0, 1),
            step(JUMP, u32::try_from(below.len()).unwrap_or(u32::MAX)),
        ],
    };
    code.extend(below);
    code.extend(search(high));
    code
}

fn decide(verdict: &Verdict) -> Vec<sock_filter> {
    let errno = |number: u16| step(RETURN, RETURN_ERRNO | u32::from(number));
    match verdict {
        Verdict::Allow => vec![step(RETURN, RETURN_ALLOW)],
        Verdict::Errno(number) => vec![errno(*number)],
        Verdict::Notify => vec![step(RETURN, RETURN_USER_NOTIF)],
        Verdict::Trace => vec![step(RETURN, RETURN_TRACE)],
        Verdict::TraceFirstArgument(values) => {
            let mut code = vec![step(LOAD, OFFSET_FIRST_ARGUMENT)];
            for value in values {
                code.push(branch(JUMP_EQUAL, *value, 0, 1));
                code.push(step(RETURN, RETURN_TRACE));
            }
            code.push(step(RETURN, RETURN_ALLOW));
            code
        }
        Verdict::FirstArgument { mask, values } => {
            let mut code = vec![step(LOAD, OFFSET_FIRST_ARGUMENT), step(AND, *mask)];
            for value in values {
                code.push(branch(JUMP_EQUAL, *value, 0, 1));
                code.push(step(RETURN, RETURN_ALLOW));
            }
            code.push(errno(EPERM));
            code
        }
    }
}

fn step(code: u16, operand: u32) -> sock_filter {
    branch(code, operand, 0, 0)
}

fn branch(code: u16, operand: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { code, jt: if_true, jf: if_false, k: operand }
}

impl Program {
    pub(super) fn install(&self) -> io::Result<()> {
        self.install_with(0).map(drop)
    }

    /// Installs it with a listener, which programs inherit; see [`super::learn`].
    pub(super) fn install_listening(&self) -> io::Result<()> {
        let fd = self.install_with(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
        let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the descriptor is the kernel's answer; it stays open for good.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn install_with(&self, flags: libc::c_ulong) -> io::Result<libc::c_long> {
        let len = u16::try_from(self.0.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the program is `len` valid instructions, which the kernel copies.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                ptr::from_ref(&program),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does, on one call.
    fn run(program: &Program, architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = &program.0[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                LOAD => {
                    accumulator = match step.k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCHITECTURE => architecture,
                        _ => argument,
                    }
                }
                AND => accumulator &= step.k,
                JUMP => at += step.k as usize,
                JUMP_EQUAL => at += jump(accumulator == step.k),
                JUMP_AT_LEAST => at += jump(accumulator >= step.k),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn every_number_gets_its_verdict() {
        let mut rules: BTreeMap<u32, Verdict> =
            (0..900).filter(|number| number % 3 != 1).map(|n| (n, Verdict::Allow)).collect();
        rules.insert(301, Verdict::Errno(38));
        rules.insert(0, Verdict::FirstArgument { mask: 0xf0, values: vec![0x10, 0x30] });
        rules.insert(2, Verdict::Trace);
        rules.insert(3, Verdict::TraceFirstArgument(vec![0, 5]));
        let program = compile(&rules);
        for number in 0..1000 {
            let expected = match rules.get(&number) {
                Some(Verdict::Errno(number)) => RETURN_ERRNO | u32::from(*number),
                Some(Verdict::Trace) => RETURN_TRACE,
                Some(_) => RETURN_ALLOW,
                None => RETURN_ERRNO | 1,
            };
            assert_eq!(run(&program, ARCHITECTURE, number, 0x3f), expected, "call {number}");
        }
        assert_eq!(run(&program, ARCHITECTURE, 0, 0x2f), RETURN_ERRNO | 1);
        assert_eq!(run(&program, ARCHITECTURE, 3, 5), RETURN_TRACE);
        assert_eq!(run(&program, ARCHITECTURE, 3, 1), RETURN_ALLOW);
        assert_eq!(run(&program, ARCHITECTURE ^ 1, 3, 0), RETURN_KILL_PROCESS);
    }
}
