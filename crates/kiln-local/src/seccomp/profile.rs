//! The default profile: an allow-list in the tradition of Docker's.
//!
//! It starts from Docker's default profile (moby/profiles, `seccomp/default.json`, 2025) as it
//! applies to a container without capabilities, and leaves out more, because an instance never
//! debugs another process and has no reason to reach rarely used kernel code:
//!
//! | left out beside Docker's | why |
//! | --- | --- |
//! | `ptrace`, `process_vm_readv`, `process_vm_writev` | nothing is debugged or injected in place |
//! | `modify_ldt`, `vm86`, 32-bit calls | 16-bit and 32-bit code is a recurring source of bugs |
//! | `name_to_handle_at`, `fanotify_mark`, `listmount`, `statmount` | look past the own files |
//! | `uretprobe`, `ipc`, `socketcall` | not called by 64-bit programs |
//! | `socket` but for unix, IPv4, IPv6 and netlink | `AF_ALG`, `AF_VSOCK`, `AF_PACKET` and others |
//!
//! What both refuse: mounts, namespaces (`unshare`, `setns`, `clone` with `CLONE_NEW*`), keyrings,
//! `bpf`, `perf_event_open`, `userfaultfd`, `io_uring_*`, modules, clocks that are set, swap,
//! `kexec`, `reboot`, `open_by_handle_at`. `clone3` fails with `ENOSYS`, so that C libraries fall
//! back to `clone`, whose flags a filter can see.

use std::collections::BTreeMap;

use super::bpf::Verdict;

/// `CLONE_NEW*` of every namespace, bits of the first argument of `clone`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// Values of `personality` that change nothing of consequence: `PER_LINUX`, `PER_LINUX32`, both
/// with `UNAME26`, and the query.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The error of a call that the kernel does not have, `ENOSYS` of asm-generic/errno.h.
const ENOSYS: u16 = 38;

/// A system call: its name and its number.
type Call = (&'static str, libc::c_long);

/// The constants of the libc crate with their names.
macro_rules! calls {
    ($($constant:ident,)*) => {
        &[$((stringify!($constant), libc::$constant),)*]
    };
}

/// Allowed on every architecture.
const COMMON: &[Call] = calls![
    SYS_accept,
    SYS_accept4,
    SYS_adjtimex,
    SYS_bind,
    SYS_brk,
    SYS_capget,
    SYS_capset,
    SYS_chdir,
    SYS_clock_adjtime,
    SYS_clock_getres,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_close,
    SYS_close_range,
    SYS_connect,
    SYS_copy_file_range,
    SYS_dup,
    SYS_dup3,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_execve,
    SYS_execveat,
    SYS_exit,
    SYS_exit_group,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_fadvise64,
    SYS_fallocate,
    SYS_fchdir,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchmodat2,
    SYS_fchown,
    SYS_fchownat,
    SYS_fcntl,
    SYS_fdatasync,
    SYS_fgetxattr,
    SYS_flistxattr,
    SYS_flock,
    SYS_fremovexattr,
    SYS_fsetxattr,
    SYS_fstat,
    SYS_fstatfs,
    SYS_fsync,
    SYS_ftruncate,
    SYS_futex,
    SYS_futex_waitv,
    SYS_getcpu,
    SYS_getcwd,
    SYS_getdents64,
    SYS_getegid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getgroups,
    SYS_getitimer,
    SYS_getpeername,
    SYS_getpgid,
    SYS_getpid,
    SYS_getppid,
    SYS_getpriority,
    SYS_getrandom,
    SYS_getresgid,
    SYS_getresuid,
    SYS_getrlimit,
    SYS_get_robust_list,
    SYS_getrusage,
    SYS_getsid,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_gettid,
    SYS_gettimeofday,
    SYS_getuid,
    SYS_getxattr,
    SYS_inotify_add_watch,
    SYS_inotify_init1,
    SYS_inotify_rm_watch,
    SYS_io_cancel,
    SYS_ioctl,
    SYS_io_destroy,
    SYS_io_getevents,
    SYS_ioprio_get,
    SYS_ioprio_set,
    SYS_io_setup,
    SYS_io_submit,
    SYS_kill,
    SYS_landlock_add_rule,
    SYS_landlock_create_ruleset,
    SYS_landlock_restrict_self,
    SYS_lgetxattr,
    SYS_linkat,
    SYS_listen,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_lremovexattr,
    SYS_lseek,
    SYS_lsetxattr,
    SYS_madvise,
    SYS_membarrier,
    SYS_memfd_create,
    SYS_memfd_secret,
    SYS_mincore,
    SYS_mkdirat,
    SYS_mknodat,
    SYS_mlock,
    SYS_mlock2,
    SYS_mlockall,
    SYS_mmap,
    SYS_mprotect,
    SYS_mq_getsetattr,
    SYS_mq_notify,
    SYS_mq_open,
    SYS_mq_timedreceive,
    SYS_mq_timedsend,
    SYS_mq_unlink,
    SYS_mremap,
    SYS_mseal,
    SYS_msgctl,
    SYS_msgget,
    SYS_msgrcv,
    SYS_msgsnd,
    SYS_msync,
    SYS_munlock,
    SYS_munlockall,
    SYS_munmap,
    SYS_nanosleep,
    SYS_newfstatat,
    SYS_openat,
    SYS_openat2,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_pipe2,
    SYS_pkey_alloc,
    SYS_pkey_free,
    SYS_pkey_mprotect,
    SYS_ppoll,
    SYS_prctl,
    SYS_pread64,
    SYS_preadv,
    SYS_preadv2,
    SYS_prlimit64,
    SYS_process_mrelease,
    SYS_pselect6,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_read,
    SYS_readahead,
    SYS_readlinkat,
    SYS_readv,
    SYS_recvfrom,
    SYS_recvmmsg,
    SYS_recvmsg,
    SYS_remap_file_pages,
    SYS_removexattr,
    SYS_renameat,
    SYS_renameat2,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigpending,
    SYS_rt_sigprocmask,
    SYS_rt_sigqueueinfo,
    SYS_rt_sigreturn,
    SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait,
    SYS_rt_tgsigqueueinfo,
    SYS_sched_getaffinity,
    SYS_sched_getattr,
    SYS_sched_getparam,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_sched_getscheduler,
    SYS_sched_rr_get_interval,
    SYS_sched_setaffinity,
    SYS_sched_setattr,
    SYS_sched_setparam,
    SYS_sched_setscheduler,
    SYS_sched_yield,
    SYS_seccomp,
    SYS_semctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_sendfile,
    SYS_sendmmsg,
    SYS_sendmsg,
    SYS_sendto,
    SYS_setfsgid,
    SYS_setfsuid,
    SYS_setgid,
    SYS_setgroups,
    SYS_setitimer,
    SYS_setpgid,
    SYS_setpriority,
    SYS_setregid,
    SYS_setresgid,
    SYS_setresuid,
    SYS_setreuid,
    SYS_setrlimit,
    SYS_set_robust_list,
    SYS_setsid,
    SYS_setsockopt,
    SYS_set_tid_address,
    SYS_setuid,
    SYS_setxattr,
    SYS_shmat,
    SYS_shmctl,
    SYS_shmdt,
    SYS_shmget,
    SYS_shutdown,
    SYS_sigaltstack,
    SYS_signalfd4,
    SYS_socketpair,
    SYS_splice,
    SYS_statfs,
    SYS_statx,
    SYS_symlinkat,
    SYS_sync,
    SYS_sync_file_range,
    SYS_syncfs,
    SYS_sysinfo,
    SYS_tee,
    SYS_tgkill,
    SYS_timer_create,
    SYS_timer_delete,
    SYS_timerfd_create,
    SYS_timerfd_gettime,
    SYS_timerfd_settime,
    SYS_timer_getoverrun,
    SYS_timer_gettime,
    SYS_timer_settime,
    SYS_times,
    SYS_tkill,
    SYS_truncate,
    SYS_umask,
    SYS_uname,
    SYS_unlinkat,
    SYS_utimensat,
    SYS_vmsplice,
    SYS_wait4,
    SYS_waitid,
    SYS_write,
    SYS_writev,
];

/// Calls that newer architectures do without.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &[Call] = calls![
    SYS_access,
    SYS_alarm,
    SYS_arch_prctl,
    SYS_chmod,
    SYS_chown,
    SYS_creat,
    SYS_dup2,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_eventfd,
    SYS_fork,
    SYS_futimesat,
    SYS_getdents,
    SYS_getpgrp,
    SYS_get_thread_area,
    SYS_inotify_init,
    SYS_lchown,
    SYS_link,
    SYS_lstat,
    SYS_mkdir,
    SYS_mknod,
    SYS_open,
    SYS_pause,
    SYS_pipe,
    SYS_poll,
    SYS_readlink,
    SYS_rename,
    SYS_rmdir,
    SYS_select,
    SYS_set_thread_area,
    SYS_signalfd,
    SYS_stat,
    SYS_symlink,
    SYS_time,
    SYS_unlink,
    SYS_utime,
    SYS_utimes,
    SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURE: &[Call] = &[];

/// Calls that the default profile allows on another architecture than this: a profile may name them.
#[cfg(target_arch = "x86_64")]
pub(super) const ELSEWHERE: &[&str] = &[];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const ELSEWHERE: &[&str] = &[
    "access",
    "alarm",
    "arch_prctl",
    "chmod",
    "chown",
    "creat",
    "dup2",
    "epoll_create",
    "epoll_wait",
    "eventfd",
    "fork",
    "futimesat",
    "getdents",
    "getpgrp",
    "get_thread_area",
    "inotify_init",
    "lchown",
    "link",
    "lstat",
    "mkdir",
    "mknod",
    "open",
    "pause",
    "pipe",
    "poll",
    "readlink",
    "rename",
    "rmdir",
    "select",
    "set_thread_area",
    "signalfd",
    "stat",
    "symlink",
    "time",
    "unlink",
    "utime",
    "utimes",
    "vfork",
];

/// Newer calls, which have one number everywhere and no name in the libc crate yet.
const RECENT: [Call; 5] = [
    ("cachestat", 451),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
];

/// Calls that are allowed with some arguments only.
const BOUNDED: [Call; 4] = [
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("personality", libc::SYS_personality),
    ("socket", libc::SYS_socket),
];

/// The verdict on each system call that does not simply fail with `EPERM`.
pub(super) fn rules() -> BTreeMap<u32, Verdict> {
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let families = families.iter().filter_map(|family| u32::try_from(*family).ok()).collect();
    let special = [
        (libc::SYS_clone, Verdict::FirstArgument { mask: NEW_NAMESPACES, values: vec![0] }),
        (libc::SYS_clone3, Verdict::Errno(ENOSYS)),
        (libc::SYS_socket, Verdict::FirstArgument { mask: u32::MAX, values: families }),
        (
            libc::SYS_personality,
            Verdict::FirstArgument { mask: u32::MAX, values: PERSONALITIES.to_vec() },
        ),
    ];
    let allowed =
        COMMON.iter().chain(ARCHITECTURE).chain(&RECENT).map(|call| (call.1, Verdict::Allow));
    allowed
        .chain(special)
        .filter_map(|(number, verdict)| Some((u32::try_from(number).ok()?, verdict)))
        .collect()
}

/// The calls that the default profile allows whatever their arguments: name and number.
pub(super) fn allowed() -> impl Iterator<Item = (&'static str, u32)> {
    let calls = COMMON.iter().chain(ARCHITECTURE).chain(&RECENT);
    calls.filter_map(|(name, number)| {
        Some((name.trim_start_matches("SYS_"), u32::try_from(*number).ok()?))
    })
}

/// The number of a system call that the default profile allows, with some arguments at least.
pub(super) fn number(name: &str) -> Option<u32> {
    let calls = COMMON.iter().chain(ARCHITECTURE).chain(&RECENT).chain(&BOUNDED);
    let mut calls = calls.map(|(known, number)| (known.trim_start_matches("SYS_"), number));
    let (_, number) = calls.find(|(known, _)| *known == name)?;
    u32::try_from(*number).ok()
}

/// Clocks that tell the time of the wall, of linux/time.h: `CLOCK_REALTIME`,
/// `CLOCK_REALTIME_COARSE`, `CLOCK_REALTIME_ALARM`, `CLOCK_TAI`.
const WALL_CLOCKS: [u32; 4] = [0, 5, 8, 11];

/// The rules for programs that run while an image is built.
pub(super) fn build_rules(clock_is_fixed: bool) -> BTreeMap<u32, Verdict> {
    let mut rules = rules();
    let mut set = |number: libc::c_long, verdict| {
        rules.extend(u32::try_from(number).ok().map(|number| (number, verdict)));
    };
    set(libc::SYS_chroot, Verdict::Allow);
    if clock_is_fixed {
        set(libc::SYS_clock_gettime, Verdict::TraceFirstArgument(WALL_CLOCKS.to_vec()));
        set(libc::SYS_gettimeofday, Verdict::Trace);
        #[cfg(target_arch = "x86_64")]
        set(libc::SYS_time, Verdict::Trace);
        // They tell the time, too.
        set(libc::SYS_adjtimex, Verdict::Errno(ENOSYS));
        set(libc::SYS_clock_adjtime, Verdict::Errno(ENOSYS));
    }
    rules
}
