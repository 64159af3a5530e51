//! What an instance sees and what it is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kiln_local::instance::record;
use kiln_local::launcher::protocol::{FileMount, WritableMount};

use crate::support::TestRoot;

#[test]
fn every_namespace_is_its_own() {
    let Some(root) = TestRoot::new("every_namespace_is_its_own") else { return };
    let (exit, output) = root.run(root.spec("names", &["process"]));
    assert_eq!(exit.code, Some(0));
    for name in ["net", "mnt", "pid", "ipc", "uts", "cgroup", "user"] {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(Path::new(output.get(&format!("namespace {name}"))), host, "{name}");
    }
    assert_eq!(output.get("pid"), "1");
    // Its session and the session's leader are inside: it has left the launcher's.
    assert_eq!(output.get("sid"), "1");
    assert_eq!((output.get("uid"), output.get("gid")), ("1000", "1001"));
    assert_eq!((output.get("umask"), output.get("cwd")), ("22", "/"));
    assert_eq!(output.get("env PATH"), "/");
}

#[test]
fn it_is_nobody_on_the_host_and_itself_inside() {
    let Some(root) = TestRoot::new("it_is_nobody_on_the_host_and_itself_inside") else { return };
    let mut client = root.client();
    let launched = root.start(&mut client, root.spec("user", &["sleep"]));
    let record = record::read(root.path(), "user").unwrap().unwrap();
    assert!(record.user_namespace, "{:?}", record.no_user_namespace_because);
    let first = record.first_host_id.unwrap();
    let map = fs::read_to_string(format!("/proc/{}/uid_map", launched.pid)).unwrap();
    let map: Vec<u32> = map.split_whitespace().map(|field| field.parse().unwrap()).collect();
    assert_eq!(map, [0, first, 65536]);
    let status = fs::read_to_string(format!("/proc/{}/status", launched.pid)).unwrap();
    let uid = first + 1000;
    assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    assert!(status.contains(&format!("Groups:\t{} \n", first + 55)), "{status}");
    assert_eq!(record.labels.stack, "test");
    assert_eq!(record.pid, launched.pid);
}

#[test]
fn there_is_no_privilege_left() {
    let Some(root) = TestRoot::new("there_is_no_privilege_left") else { return };
    for user in ["worker", "0:0"] {
        let mut spec = root.spec("caps", &["read", "/proc/self/status"]);
        user.clone_into(&mut spec.user);
        let (_, output) = root.run(spec);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(output.status(set), "0000000000000000", "{set} of {user}");
        }
        assert_eq!((output.status("NoNewPrivs"), output.status("Seccomp")), ("1", "2"));
        kiln_local::logs::remove(root.path(), "caps").unwrap();
    }
}

#[test]
fn dangerous_system_calls_are_refused() {
    let Some(root) = TestRoot::new("dangerous_system_calls_are_refused") else { return };
    let mut spec = root.spec("calls", &["syscalls"]);
    // User 0 of the instance, who would have the most rights.
    "0:0".clone_into(&mut spec.user);
    let (exit, output) = root.run(spec);
    assert_eq!(exit.code, Some(0), "{output:?}");
    assert_eq!(output.get("clone3"), libc::ENOSYS.to_string());
    assert_eq!(output.get("tcp socket"), "0");
    let refused = libc::EPERM.to_string();
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "clone",
        "ptrace",
        "keyctl",
        "add_key",
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "io_uring_setup",
        "pivot_root",
        "init_module",
        "open_by_handle_at",
        "reboot",
        "packet socket",
        "raw socket",
        "vsock socket",
    ] {
        assert_eq!(output.get(name), refused, "{name}");
    }
    // By Landlock, where the kernel asks it before it looks for the capability.
    let by_landlock = libc::EACCES.to_string();
    let answers = [refused.as_str(), by_landlock.as_str()];
    assert!(answers.contains(&output.get("mknod")), "mknod: {}", output.get("mknod"));
}

#[test]
fn nothing_can_be_written_but_what_is_declared() {
    let Some(root) = TestRoot::new("nothing_can_be_written_but_what_is_declared") else { return };
    let refused = [
        "/x",
        "/etc/x",
        "/etc/hosts",
        "/srv/x",
        "/probe",
        "/dev/x",
        "/dev/shm/x",
        "/sys/x",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/proc/sys/net/ipv4/ip_forward",
        "/sys/fs/cgroup/x",
        "/sys/kernel/uevent_helper",
        "/proc/self/oom_score_adj",
    ];
    let arguments: Vec<&str> =
        ["write", "/tmp/x", "/dev/null"].into_iter().chain(refused).collect();
    let mut spec = root.spec("writes", &arguments[..arguments.len() - 1]);
    "0:0".clone_into(&mut spec.user);
    let (_, output) = root.run(spec);
    assert_eq!((output.get("/tmp/x"), output.get("/dev/null")), ("written", "written"));
    for path in &refused[..refused.len() - 1] {
        assert!(output.get(path).starts_with("error "), "{path}: {}", output.get(path));
    }
    assert_eq!(output.get("/etc/x"), format!("error {}", libc::EROFS));
}

#[test]
fn writable_space_has_its_size_and_no_more() {
    let Some(root) = TestRoot::new("writable_space_has_its_size_and_no_more") else { return };
    let mut spec = root.spec("fill", &["fill", "/dev/shm/x"]);
    spec.writable.push(WritableMount {
        path: "/dev/shm".to_owned(),
        size_bytes: 3 << 20,
        mode: 0o1777,
        exec: false,
    });
    let (_, output) = root.run(spec);
    assert_eq!(output.get("written"), (3 << 20).to_string());
    assert_eq!(output.get("end"), format!("error {}", libc::ENOSPC));
}

#[test]
fn mounts_are_the_declared_ones_with_their_flags() {
    let Some(root) = TestRoot::new("mounts_are_the_declared_ones_with_their_flags") else { return };
    let (_, output) = root.run(root.spec("mounts", &["read", "/proc/self/mountinfo"]));
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    for line in output.all("/proc/self/mountinfo") {
        let fields: Vec<&str> = line.split(' ').collect();
        options.insert(fields[4].to_owned(), fields[5].to_owned());
    }
    let has = |path: &str, flags: &[&str]| {
        let options: Vec<&str> = options.get(path).unwrap().split(',').collect();
        assert!(flags.iter().all(|flag| options.contains(flag)), "{path}: {options:?}");
    };
    has("/", &["ro", "nosuid", "nodev"]);
    has("/tmp", &["rw", "nosuid", "nodev", "noexec"]);
    has("/proc", &["rw", "nosuid", "nodev", "noexec"]);
    has("/proc/sys", &["ro"]);
    for hidden in ["/proc/kcore", "/proc/timer_list", "/proc/keys", "/proc/sysrq-trigger"] {
        if Path::new(hidden).exists() {
            has(hidden, &["ro", "nosuid", "nodev", "noexec"]);
        }
    }
    has("/sys", &["ro", "nosuid", "nodev", "noexec"]);
    has("/dev", &["ro", "nosuid", "noexec"]);
    let known = ["/", "/tmp", "/proc", "/sys", "/dev", "/dev/pts"];
    for path in options.keys() {
        let inside = path.starts_with("/proc/") || path.starts_with("/sys/");
        assert!(known.contains(&path.as_str()) || inside, "unexpected mount at {path}");
    }
}

#[test]
fn devices_and_the_network_are_minimal() {
    let Some(root) = TestRoot::new("devices_and_the_network_are_minimal") else { return };
    let paths = ["list", "/dev", "/sys/class/net", "/proc/self/fd", "/dev/shm"];
    let (_, output) = root.run(root.spec("few", &paths));
    let devices = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(output.get("/dev"), devices);
    assert_eq!(output.get("/sys/class/net"), "lo");
    // 0, 1, 2 and the one with which the directory is read.
    assert_eq!(output.get("/proc/self/fd"), "0 1 2 3");
    assert_eq!(output.get("/dev/shm"), "");
}

#[test]
fn files_of_its_own_lie_over_those_of_the_image() {
    let Some(root) = TestRoot::new("files_of_its_own_lie_over_those_of_the_image") else { return };
    let mut spec =
        root.spec("files", &["read", "/etc/hosts", "/etc/shadow", "/proc/sys/kernel/hostname"]);
    spec.files.push(FileMount {
        path: "/etc/hosts".to_owned(),
        content: "127.0.0.1 localhost\n".to_owned(),
        mode: 0o644,
    });
    let (_, output) = root.run(spec);
    assert_eq!(output.get("/etc/hosts"), "127.0.0.1 localhost");
    // The image's owners hold: a file of user 0 that others may not read.
    assert_eq!(output.get("/etc/shadow"), format!("error {}", libc::EACCES));
    assert_eq!(output.get("/proc/sys/kernel/hostname"), "inside");
}

#[test]
fn secrets_are_kept_nowhere() {
    let Some(root) = TestRoot::new("secrets_are_kept_nowhere") else { return };
    let mut client = root.client();
    let mut spec = root.spec("keeps", &["sleep"]);
    spec.env.push(("PASSWORD".to_owned(), "correct-horse".to_owned()));
    spec.files.push(FileMount {
        path: "/etc/hosts".to_owned(),
        content: "battery-staple".to_owned(),
        mode: 0o400,
    });
    assert!(!format!("{spec:?}").contains("horse"));
    root.start(&mut client, spec);
    let mut directories = vec![root.path().join("run"), root.path().join("logs")];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.is_file() {
                let text = fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&text);
                assert!(!text.contains("horse") && !text.contains("staple"), "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files >= 3, "the record, the log and the pid file were not looked at");
}

#[test]
fn output_can_be_opened_by_its_name() {
    let Some(root) = TestRoot::new("output_can_be_opened_by_its_name") else { return };
    let (_, output) = root.run(root.spec("names", &["write", "/dev/stdout", "/dev/stderr"]));
    assert!(output.0.iter().any(|line| line.contains("/dev/stdout: written")), "{output:?}");
    assert!(output.0.iter().any(|line| line.contains("/dev/stderr: written")), "{output:?}");
}
