//! System calls that an instance must not get through, each tried in a child of its own.

use std::ffi::{CStr, c_long};
use std::io;

use crate::errno;

/// A system call with harmless arguments: were it allowed, the child's end would undo it.
type Call = fn() -> c_long;

const CALLS: [(&str, Call); 18] = [
    ("mount", || mount(c"/proc")),
    ("umount", || call(libc::SYS_umount2, [path(c"/proc"), libc::MNT_DETACH.into(), 0, 0, 0])),
    ("unshare", || call(libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0])),
    ("unshare_user", || call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0])),
    ("setns", || call(libc::SYS_setns, [open(c"/proc/self/ns/net"), 0, 0, 0, 0])),
    ("pivot_root", || call(libc::SYS_pivot_root, [path(c"/"), path(c"/"), 0, 0, 0])),
    ("chroot", || call(libc::SYS_chroot, [path(c"/proc"), 0, 0, 0, 0])),
    ("mknod", || mknod(c"/tmp/kiln-probe-null")),
    ("ptrace", || call(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0, 0, 0])),
    // KEYCTL_GET_KEYRING_ID of the session keyring, without making one.
    ("keyctl", || call(libc::SYS_keyctl, [0, -3, 0, 0, 0])),
    // BPF_PROG_GET_NEXT_ID, with no attributes.
    ("bpf", || call(libc::SYS_bpf, [11, 0, 0, 0, 0])),
    ("perf_event_open", || call(libc::SYS_perf_event_open, [0, 0, -1, -1, 0])),
    ("userfaultfd", || call(libc::SYS_userfaultfd, [0, 0, 0, 0, 0])),
    ("io_uring_setup", || call(libc::SYS_io_uring_setup, [0, 0, 0, 0, 0])),
    ("sethostname", || call(libc::SYS_sethostname, [path(c"probed"), 6, 0, 0, 0])),
    // Zero is none of the magic numbers: nothing is restarted, whoever asks.
    ("reboot", || call(libc::SYS_reboot, [0, 0, 0, 0, 0])),
    ("init_module", || call(libc::SYS_init_module, [0, 0, 0, 0, 0])),
    // Allowed everywhere: shows that a refusal is not the probe's own fault.
    ("getpid", || call(libc::SYS_getpid, [0; 5])),
];

/// Tries the system call `name`; `None` when it is not in the list.
pub(crate) fn attempt(name: &str) -> Option<String> {
    let (_, call) = CALLS.iter().find(|(known, _)| *known == name)?;
    Some(in_child(*call))
}

fn in_child(call: Call) -> String {
    // SAFETY: the child makes raw system calls only, which is safe after a fork of a process
    // with threads, and never returns from this block.
    let child = unsafe {
        match libc::fork() {
            0 => {
                let failed = call() < 0;
                let code = if failed { *libc::__errno_location() } else { 0 };
                libc::_exit(code)
            }
            child => child,
        }
    };
    if child < 0 {
        return format!("fork: {}", errno::of(&io::Error::last_os_error()));
    }
    let mut status = 0;
    // SAFETY: the pid is that of a child that has not been waited for; `status` is live.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        return format!("wait: {}", errno::of(&io::Error::last_os_error()));
    }
    if libc::WIFSIGNALED(status) {
        return format!("killed by signal {}", libc::WTERMSIG(status));
    }
    match libc::WEXITSTATUS(status) {
        0 => "ok".to_owned(),
        number => errno::name(number),
    }
}

fn call(number: c_long, arguments: [c_long; 5]) -> c_long {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: each entry of the table passes what its system call takes: numbers, null, or
    // pointers to constants.
    unsafe { libc::syscall(number, first, second, third, fourth, fifth) }
}

fn path(text: &'static CStr) -> c_long {
    text.as_ptr() as c_long
}

fn open(file: &'static CStr) -> c_long {
    call(libc::SYS_openat, [libc::AT_FDCWD.into(), path(file), libc::O_RDONLY.into(), 0, 0])
}

/// Mounts a tmpfs on `target` and takes it away again.
fn mount(target: &'static CStr) -> c_long {
    let tmpfs = path(c"tmpfs");
    let mounted = call(libc::SYS_mount, [tmpfs, path(target), tmpfs, 0, 0]);
    if mounted == 0 {
        call(libc::SYS_umount2, [path(target), libc::MNT_DETACH.into(), 0, 0, 0]);
    }
    mounted
}

/// Makes the null device at `file` and takes it away again.
fn mknod(file: &'static CStr) -> c_long {
    let here = libc::AT_FDCWD.into();
    let made =
        call(libc::SYS_mknodat, [here, path(file), (libc::S_IFCHR | 0o600).into(), 0x103, 0]);
    if made == 0 {
        call(libc::SYS_unlinkat, [here, path(file), 0, 0, 0]);
    }
    made
}
