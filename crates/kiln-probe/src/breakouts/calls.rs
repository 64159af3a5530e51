//! Attempts by single system calls.

use std::ffi::{CStr, c_long};

use super::{Attempt, Outcome, check};

pub(super) const ATTEMPTS: &[Attempt] = &[
    ("mount_proc", || mount(c"proc", c"proc", 0)),
    ("mount_sysfs", || mount(c"sysfs", c"sysfs", 0)),
    ("mount_cgroup", || mount(c"cgroup", c"cgroup", 0)),
    ("mount_overlay", || mount(c"overlay", c"overlay", 0)),
    ("mount_bind", || mount(c"/", c"", libc::MS_BIND)),
    ("remount_root", || {
        call("the root, writable", libc::SYS_mount, [0, at(c"/"), 0, long(libc::MS_REMOUNT), 0])
    }),
    ("unmask_proc", || {
        call(
            "a mask is gone",
            libc::SYS_umount2,
            [at(c"/proc/kcore"), libc::MNT_DETACH.into(), 0, 0, 0],
        )
    }),
    ("fsopen", || call("a filesystem", libc::SYS_fsopen, [at(c"tmpfs"), 0, 0, 0, 0])),
    ("open_tree", || {
        // OPEN_TREE_CLONE
        call("a mount", libc::SYS_open_tree, [libc::AT_FDCWD.into(), at(c"/"), 1, 0, 0])
    }),
    ("move_mount", || {
        call("a mount moved", libc::SYS_move_mount, [-1, at(c"/"), -1, at(c"/tmp"), 0])
    }),
    ("mount_setattr", || {
        call("attributes", libc::SYS_mount_setattr, [libc::AT_FDCWD.into(), at(c"/"), 0, 0, 0])
    }),
    ("pivot_root", || call("another root", libc::SYS_pivot_root, [at(c"/"), at(c"/"), 0, 0, 0])),
    ("chroot", || call("another root", libc::SYS_chroot, [at(c"/proc"), 0, 0, 0, 0])),
    ("unshare_user", || unshare(libc::CLONE_NEWUSER)),
    ("unshare_mount", || unshare(libc::CLONE_NEWNS)),
    ("unshare_network", || unshare(libc::CLONE_NEWNET)),
    ("unshare_cgroup", || unshare(libc::CLONE_NEWCGROUP)),
    ("clone_user", clone_user),
    ("clone3_user", clone3_user),
    ("setns_network", || setns(c"/proc/1/ns/net")),
    ("setns_mount", || setns(c"/proc/1/ns/mnt")),
    ("setns_user", || setns(c"/proc/1/ns/user")),
    // KEYCTL_GET_KEYRING_ID of the session keyring, made where there is none.
    ("keyctl", || call("a keyring", libc::SYS_keyctl, [0, -3, 1, 0, 0])),
    ("add_key", || call("a key", libc::SYS_add_key, [at(c"user"), at(c"kiln"), at(c"x"), 1, -3])),
    ("request_key", || call("a key", libc::SYS_request_key, [at(c"user"), at(c"kiln"), 0, 0, 0])),
    // BPF_PROG_GET_NEXT_ID, and BPF_MAP_CREATE with no attributes.
    ("bpf_list", || call("a program", libc::SYS_bpf, [11, 0, 0, 0, 0])),
    ("bpf_map", || call("a map", libc::SYS_bpf, [0, 0, 0, 0, 0])),
    ("perf_event_open", || call("a counter", libc::SYS_perf_event_open, [0, 0, -1, -1, 0])),
    ("userfaultfd", || call("a descriptor", libc::SYS_userfaultfd, [0, 0, 0, 0, 0])),
    ("io_uring", || call("a ring", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0])),
    ("open_by_handle_at", || call("a file", libc::SYS_open_by_handle_at, [0, 0, 0, 0, 0])),
    ("name_to_handle_at", || {
        call("a handle", libc::SYS_name_to_handle_at, [libc::AT_FDCWD.into(), at(c"/"), 0, 0, 0])
    }),
    ("kexec_load", || call("a kernel", libc::SYS_kexec_load, [0, 0, 0, 0, 0])),
    ("kexec_file_load", || call("a kernel", libc::SYS_kexec_file_load, [-1, -1, 0, 0, 0])),
    ("init_module", || call("a module", libc::SYS_init_module, [0, 0, at(c""), 0, 0])),
    ("finit_module", || call("a module", libc::SYS_finit_module, [-1, at(c""), 0, 0, 0])),
    ("delete_module", || call("a module gone", libc::SYS_delete_module, [at(c"kiln"), 0, 0, 0, 0])),
    ("ptrace", || call("tracing", libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), 1, 0, 0, 0])),
    ("process_vm_readv", || call("memory", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0])),
    ("process_vm_writev", || call("memory", libc::SYS_process_vm_writev, [1, 0, 0, 0, 0])),
    ("pidfd_getfd", || call("a descriptor", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0])),
    ("kcmp", || call("an order of addresses", libc::SYS_kcmp, [1, 1, 0, 0, 0])),
    // ADDR_NO_RANDOMIZE
    ("personality", || {
        call("another personality", libc::SYS_personality, [0x004_0000, 0, 0, 0, 0])
    }),
    ("syslog", || call("the kernel's messages", libc::SYS_syslog, [10, 0, 0, 0, 0])),
    ("reboot", || call("a restart", libc::SYS_reboot, [0, 0, 0, 0, 0])),
    ("swapon", || call("swap", libc::SYS_swapon, [at(c"/tmp"), 0, 0, 0, 0])),
    ("clock_settime", || call("the clock", libc::SYS_clock_settime, [0, 0, 0, 0, 0])),
    ("sethostname", || call("the name", libc::SYS_sethostname, [at(c"escaped"), 7, 0, 0, 0])),
    ("acct", || call("accounting", libc::SYS_acct, [0, 0, 0, 0, 0])),
    ("quotactl", || call("quotas", libc::SYS_quotactl, [0, 0, 0, 0, 0])),
    ("fanotify_init", || call("a watch", libc::SYS_fanotify_init, [0, 0, 0, 0, 0])),
    ("vhangup", || call("a terminal", libc::SYS_vhangup, [0; 5])),
    ("lookup_dcookie", || call("a path", libc::SYS_lookup_dcookie, [0; 5])),
    ("move_pages", || call("pages", libc::SYS_move_pages, [1, 0, 0, 0, 0])),
    #[cfg(target_arch = "x86_64")]
    ("iopl", || call("ports", libc::SYS_iopl, [3, 0, 0, 0, 0])),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", || call("ports", libc::SYS_ioperm, [0x80, 1, 1, 0, 0])),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", || call("a segment", libc::SYS_modify_ldt, [0, 0, 0, 0, 0])),
    ("become_root", || {
        call("user 0", libc::SYS_setresuid, [0, 0, 0, 0, 0]).and_then(|_| capabilities())
    }),
    ("take_capabilities", capabilities),
    ("ambient_capability", || {
        // PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN
        call("a capability", libc::SYS_prctl, [47, 2, 21, 0, 0])
    }),
    ("new_privileges", || {
        call("new privileges", libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS.into(), 0, 0, 0, 0])
    }),
    ("raise_nice", || call("priority", libc::SYS_setpriority, [0, 0, -20, 0, 0])),
    ("realtime", realtime),
];

/// A system call that is not to succeed; what would be got if it did.
fn call(got: &str, number: c_long, arguments: [c_long; 5]) -> Outcome {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: each entry passes what its system call takes: numbers, null, or pointers to
    // constants.
    check(unsafe { libc::syscall(number, first, second, third, fourth, fifth) })?;
    Ok(got.to_owned())
}

fn at(text: &'static CStr) -> c_long {
    text.as_ptr() as c_long
}

fn long(flags: libc::c_ulong) -> c_long {
    flags.cast_signed()
}

fn mount(source: &'static CStr, kind: &'static CStr, flags: libc::c_ulong) -> Outcome {
    let arguments = [at(source), at(c"/tmp"), at(kind), long(flags), 0];
    call("a mount", libc::SYS_mount, arguments)
}

fn unshare(flag: libc::c_int) -> Outcome {
    call("a namespace", libc::SYS_unshare, [flag.into(), 0, 0, 0, 0])
}

fn setns(namespace: &'static CStr) -> Outcome {
    // SAFETY: the path is terminated.
    let fd =
        check(unsafe { libc::open(namespace.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }.into())?;
    call("a namespace", libc::SYS_setns, [fd, 0, 0, 0, 0])
}

/// A child in a user namespace of its own, which would have every capability there.
fn clone_user() -> Outcome {
    let flags = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child has memory of its own; it ends at once.
    let child = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    Ok("a user namespace".to_owned())
}

fn clone3_user() -> Outcome {
    // struct clone_args, version 0: flags first, exit_signal fifth.
    let mut arguments = [0_u64; 8];
    arguments[0] = libc::CLONE_NEWUSER.unsigned_abs().into();
    arguments[4] = libc::SIGCHLD.unsigned_abs().into();
    // SAFETY: the arguments are live and of the stated size; without CLONE_VM the child has memory
    // of its own, and ends at once.
    let child = check(unsafe {
        libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments))
    })?;
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    Ok("a user namespace".to_owned())
}

/// Every capability in every set (capset(2), version 3).
fn capabilities() -> Outcome {
    let header = [0x2008_0522_u32, 0];
    let sets = [u32::MAX, u32::MAX, 0, 0x1ff, 0x1ff, 0];
    // SAFETY: both are live and of the form that version 3 has.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })?;
    Ok("every capability".to_owned())
}

fn realtime() -> Outcome {
    let priority = 1_i32;
    // SAFETY: a sched_param is one int.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const priority)
    };
    check(result)?;
    Ok("real-time priority".to_owned())
}
