//! The program that the launcher's tests run inside instances: it does one thing and says on
//! standard output what came of it, one `name: value` a line.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit", code] => return ExitCode::from(code.parse().unwrap_or(255)),
        ["abort"] => std::process::abort(),
        ["sleep"] => sleep(),
        ["say", text] => println!("{text}"),
        ["read", paths @ ..] => paths.iter().for_each(|path| read(path)),
        ["links", paths @ ..] => paths.iter().for_each(|path| {
            report(path, fs::read_link(path).map(|target| target.display().to_string()));
        }),
        ["list", paths @ ..] => paths.iter().for_each(|path| list(path)),
        ["write", paths @ ..] => paths.iter().for_each(|path| {
            report(path, fs::write(path, "x").map(|()| "written".to_owned()));
        }),
        ["fill", path] => fill(path),
        ["process"] => process(),
        ["syscalls"] => syscalls(),
        ["eat", mebibytes] => eat(mebibytes.parse().unwrap_or(0)),
        ["fork", count] => fork(count.parse().unwrap_or(0)),
        ["flood"] => flood(),
        ["term"] => wait_for_term(),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn report(name: &str, result: io::Result<String>) {
    match result {
        Ok(value) => println!("{name}: {value}"),
        Err(error) => println!("{name}: error {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn sleep() -> ! {
    println!("asleep");
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn read(path: &str) {
    match fs::read_to_string(path) {
        Ok(text) => text.lines().for_each(|line| println!("{path}: {line}")),
        Err(error) => report(path, Err(error)),
    }
}

fn list(path: &str) {
    let names = fs::read_dir(path).map(|entries| {
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names.join(" ")
    });
    report(path, names);
}

/// Writes until there is no more room.
fn fill(path: &str) {
    let mut written = 0_u64;
    let result = OpenOptions::new().create(true).write(true).truncate(true).open(path).and_then(
        |mut file| loop {
            written += file.write(&[0; 4096])? as u64;
        },
    );
    println!("written: {written}");
    report("end", result);
}

fn process() {
    // SAFETY: these calls take no memory.
    let (uid, gid, pid, sid) =
        unsafe { (libc::getuid(), libc::getgid(), libc::getpid(), libc::getsid(0)) };
    println!("uid: {uid}\ngid: {gid}\npid: {pid}\nsid: {sid}");
    // SAFETY: only the file mode mask of this process changes.
    println!("umask: {:o}", unsafe { libc::umask(0) });
    for name in ["net", "mnt", "pid", "ipc", "uts", "cgroup", "user"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}"));
        report(&format!("namespace {name}"), link.map(|target| target.display().to_string()));
    }
    report("cwd", std::env::current_dir().map(|path| path.display().to_string()));
    for (name, value) in std::env::vars() {
        println!("env {name}: {value}");
    }
}

/// Tries what must be refused, and prints the error numbers; 0 where it was done.
fn syscalls() {
    let try_call = |name: &str, number: libc::c_long, arguments: [libc::c_long; 4]| {
        // SAFETY: the arguments are null, small numbers or descriptors that are not open; each
        // call is either refused or fails on them.
        let result = unsafe {
            libc::syscall(number, arguments[0], arguments[1], arguments[2], arguments[3])
        };
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{name}: {}", if result < 0 { error } else { 0 });
    };
    let new_user = libc::c_long::from(libc::CLONE_NEWUSER);
    for (name, number, arguments) in [
        ("mount", libc::SYS_mount, [0; 4]),
        ("umount2", libc::SYS_umount2, [0; 4]),
        ("unshare", libc::SYS_unshare, [new_user, 0, 0, 0]),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0]),
        ("clone", libc::SYS_clone, [new_user | libc::c_long::from(libc::SIGCHLD), 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [0; 4]),
        ("keyctl", libc::SYS_keyctl, [0; 4]),
        ("add_key", libc::SYS_add_key, [0; 4]),
        ("bpf", libc::SYS_bpf, [0; 4]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 4]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
        ("pivot_root", libc::SYS_pivot_root, [0; 4]),
        ("init_module", libc::SYS_init_module, [0; 4]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 4]),
        ("reboot", libc::SYS_reboot, [0; 4]),
        ("clone3", libc::SYS_clone3, [0; 4]),
        ("packet socket", libc::SYS_socket, [17, 3, 0, 0]),
        ("raw socket", libc::SYS_socket, [2, 3, 1, 0]),
        ("vsock socket", libc::SYS_socket, [40, 1, 0, 0]),
        ("tcp socket", libc::SYS_socket, [2, 1, 0, 0]),
    ] {
        try_call(name, number, arguments);
    }
    let path = CString::new("/tmp/node").unwrap_or_default();
    // SAFETY: the path is terminated.
    let result = unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, 0x103) };
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    println!("mknod: {}", if result < 0 { error } else { 0 });
}

fn eat(mebibytes: usize) {
    let mut all = Vec::new();
    for _ in 0..mebibytes {
        all.push(vec![1_u8; 1 << 20]);
    }
    println!("eaten: {}", std::hint::black_box(&all).len());
}

fn fork(count: usize) {
    let mut made = 0;
    let failed = (0..count).find_map(|_| {
        // SAFETY: the child only waits to be killed.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            },
            -1 => io::Error::last_os_error().raw_os_error(),
            _ => {
                made += 1;
                None
            }
        }
    });
    println!("forked: {made}\nerror: {}", failed.unwrap_or(0));
}

/// Writes lines as fast as they are taken.
fn flood() -> ! {
    let line = format!("{}\n", "x".repeat(99));
    let mut out = io::stdout().lock();
    loop {
        let _ = out.write_all(line.as_bytes());
    }
}

/// Ends with status 7 on SIGTERM.
fn wait_for_term() -> ! {
    extern "C" fn on_term(_: libc::c_int) {
        // SAFETY: may be called in a signal handler.
        unsafe { libc::_exit(7) }
    }
    let handler = on_term as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing but end the process.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    sleep()
}
