//! The system calls that have no safe wrapper in rustix: `clone3`, `mount_setattr`,
//! `close_range`, `keyctl` and `execve`.
//!
//! Numbers and structures are those of the kernel's `include/uapi/linux/{sched,mount,keyctl}.h`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Makes a mount read-only.
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// Ignores set-user-ID bits.
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// Device nodes open nothing.
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
/// Nothing can be executed.
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// Translates file owners through a user namespace.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Starts the child in the control group whose descriptor is given.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `struct clone_args`, as far as Linux 5.7 knows it.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of [`clone3`] the caller is on.
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The caller, with the new process's pid as it sees it and a pidfd of it.
    Parent {
        /// The child's process id.
        pid: i32,
        /// A descriptor of the child, close-on-exec.
        pidfd: OwnedFd,
    },
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Forks with `flags` (`CLONE_NEW*`), into the version 2 control group `cgroup` when given.
///
/// # Safety
/// The process must have one thread, so that no lock is held by a thread the child lacks.
pub(crate) unsafe fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a valid clone_args of the stated size; no CLONE_VM, so that the child
    // has memory of its own and returns here; the caller has promised a single thread.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<CloneArgs>())
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has stored a new descriptor there that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(Cloned::Parent { pid, pidfd })
}

/// Sets `attributes` on the mount at `path` under `dir`, or on `dir` itself if it is empty.
pub(crate) fn mount_setattr(dir: BorrowedFd<'_>, path: &CStr, attributes: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set: attributes, ..MountAttr::default() };
    set_mount_attributes(dir, path, &attr)
}

/// Keeps `mount` from taking part in what happens to the mounts that it was cloned from.
pub(crate) fn make_private(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    set_mount_attributes(mount, c"", &attr)
}

/// Shows the files of the detached mount `mount` as owned through `user_namespace`.
pub(crate) fn mount_idmap(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP,
        userns_fd: u64::from(user_namespace.as_raw_fd().unsigned_abs()),
        ..MountAttr::default()
    };
    set_mount_attributes(mount, c"", &attr)
}

fn set_mount_attributes(dir: BorrowedFd<'_>, path: &CStr, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: the path is terminated and `attr` is a mount_attr of the stated size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::AT_EMPTY_PATH,
            ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Marks every descriptor from `first` on as closed by `execve`.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only marks descriptors; none is closed under an owner.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}

/// Leaves the session keyring of the parent for a new, empty one.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is handed over.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>())
    })?;
    Ok(())
}

/// Replaces the process by `program`. Returns only on failure.
pub(crate) fn execve(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays are terminated by null and point to terminated strings that live on.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Sets every signal to its default, as a program expects to find them: what is ignored stays so
/// through an exec.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        set_default(signal);
    }
    // SAFETY: the set is initialised before it is used; an empty mask is always valid.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Takes back that SIGPIPE is ignored.
pub(crate) fn reset_sigpipe() {
    set_default(libc::SIGPIPE);
}

/// Lets writes to closed pipes fail instead of ending the process.
pub(crate) fn ignore_sigpipe() {
    // SAFETY: installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

fn set_default(signal: libc::c_int) {
    // SAFETY: installs no handler; signals that cannot be changed are refused without effect.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
