//! The peer of launching: `crun` with the isolation that Kiln's launcher gives, less a network.
//!
//! crun refuses a machine whose control groups are hybrid, so it is run by a child of this
//! process in a mount namespace of its own, without the unified hierarchy.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::program::{SAY_AND_EXIT, SAY_AND_STAY, executable};

/// Containers that are started one after the other in one batch.
pub(crate) const BATCH: usize = 40;

/// Containers that are started at once.
pub(crate) const AT_ONCE: usize = 100;

/// What a batch showed.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// From before the start to the program's first word.
    pub(crate) first_word: Vec<Duration>,
    /// From before the start until the container was gone.
    pub(crate) gone: Vec<Duration>,
    /// Until the last of those that were started at once had said its word.
    pub(crate) at_once: Duration,
}

/// What `crun --version` begins with; `None` where it is not installed.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("crun").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.trim_start_matches("crun version ").to_owned())
}

/// Writes the bundles into `directory`.
pub(crate) fn prepare(directory: &Path) -> Result {
    for (name, code) in [("exit", SAY_AND_EXIT), ("stay", SAY_AND_STAY)] {
        let bundle = directory.join(name);
        let root = bundle.join("rootfs");
        for inside in ["bin", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(root.join(inside))?;
        }
        let program = root.join("bin/program");
        fs::write(&program, executable(code))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config())?)?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// One batch, in a child.
pub(crate) fn batch(directory: &Path) -> Result<Batch> {
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe()?)
        .arg("crun")
        .arg(directory)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let result: Value = serde_json::from_slice(&output.stdout)?;
    let times = |name: &str| {
        let seconds = result[name].as_array().into_iter().flatten().filter_map(Value::as_f64);
        seconds.map(Duration::from_secs_f64).collect::<Vec<_>>()
    };
    let at_once = result["at_once"].as_f64().unwrap_or(0.0);
    Ok(Batch {
        first_word: times("first_word"),
        gone: times("gone"),
        at_once: Duration::from_secs_f64(at_once),
    })
}

/// That child: prints what it measured as JSON.
pub(crate) fn child(directory: &Path) -> Result {
    let (mut first_word, mut gone) = (Vec::new(), Vec::new());
    for number in 0..BATCH {
        let begin = Instant::now();
        let mut container = start(directory, "exit", number)?;
        hear(&mut container)?;
        first_word.push(begin.elapsed().as_secs_f64());
        if !container.wait()?.success() {
            return Err("a container failed".into());
        }
        gone.push(begin.elapsed().as_secs_f64());
    }
    let begin = Instant::now();
    let mut containers = Vec::new();
    for number in 0..AT_ONCE {
        containers.push(start(directory, "stay", number)?);
    }
    for container in &mut containers {
        hear(container)?;
    }
    let at_once = begin.elapsed().as_secs_f64();
    for (number, container) in containers.iter_mut().enumerate() {
        crun(directory).arg("kill").arg(name("stay", number)).arg("KILL").status()?;
        container.wait()?;
    }
    println!("{}", json!({ "first_word": first_word, "gone": gone, "at_once": at_once }));
    Ok(())
}

fn crun(directory: &Path) -> Command {
    let mut command = Command::new("crun");
    command.arg("--root").arg(directory.join("state")).arg("--cgroup-manager=cgroupfs");
    command
}

fn name(bundle: &str, number: usize) -> String {
    format!("kiln-bench-{}-{bundle}-{number}", std::process::id())
}

fn start(directory: &Path, bundle: &str, number: usize) -> Result<Child> {
    let mut command = crun(directory);
    command.arg("run").arg("--bundle").arg(directory.join(bundle)).arg(name(bundle, number));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    Ok(command.spawn()?)
}

/// Waits for the program's first word.
fn hear(container: &mut Child) -> Result {
    let output = container.stdout.as_mut().ok_or("its output is not piped")?;
    output.read_exact(&mut [0; 1]).map_err(|error| format!("a container said nothing: {error}"))?;
    Ok(())
}

/// The isolation of the bundles (OCI runtime specification 1.0).
fn config() -> Value {
    let tmpfs = |path: &str, size: &str| {
        json!({ "destination": path, "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "nodev", "noexec", "mode=1777", size] })
    };
    let namespaces: Vec<Value> = ["mount", "pid", "network", "ipc", "uts", "cgroup", "user"]
        .map(|n| json!({ "type": n }))
        .into();
    let ids = json!([{ "containerID": 0, "hostID": 0x1000_0000, "size": 65_536 }]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 65_534, "gid": 65_534 }, "args": ["/bin/program"], "env": [],
            "cwd": "/", "noNewPrivileges": true, "oomScoreAdj": 100,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc",
              "options": ["nosuid", "nodev", "noexec"] },
            tmpfs("/dev", "size=64k"),
            tmpfs("/tmp", "size=1m"),
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "nodev", "noexec", "ro"] },
        ],
        "linux": {
            "namespaces": namespaces, "uidMappings": ids, "gidMappings": ids,
            "resources": {
                "memory": { "limit": 64 << 20 },
                "cpu": { "quota": 50_000, "period": 100_000 },
                "pids": { "limit": 64 },
            },
            "seccomp": seccomp(),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    })
}

/// A filter of system calls: shorter than Kiln's, since it names what is refused.
fn seccomp() -> Value {
    let refused = [
        "acct",
        "add_key",
        "bpf",
        "clock_settime",
        "delete_module",
        "finit_module",
        "init_module",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mount",
        "move_pages",
        "name_to_handle_at",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "ptrace",
        "quotactl",
        "reboot",
        "request_key",
        "setns",
        "settimeofday",
        "swapoff",
        "swapon",
        "umount2",
        "unshare",
        "userfaultfd",
        "vhangup",
    ];
    json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": refused, "action": "SCMP_ACT_ERRNO" }],
    })
}
