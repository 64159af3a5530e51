//! Attempts by way of files: the kernel's knobs, devices, links.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};

use super::{Attempt, Outcome, check, nothing};

pub(super) const ATTEMPTS: &[Attempt] = &[
    ("core_pattern", || rewrite("/proc/sys/kernel/core_pattern")),
    ("modprobe_path", || rewrite("/proc/sys/kernel/modprobe")),
    ("uevent_helper", || rewrite("/sys/kernel/uevent_helper")),
    ("binfmt_misc", || write("/proc/sys/fs/binfmt_misc/register", b":kiln:M::kiln::/x:")),
    ("sysrq_trigger", || write("/proc/sysrq-trigger", b"")),
    ("any_sysctl", || any_writable("/proc/sys", 5)),
    ("any_proc_knob", || any_of(&["fs", "bus", "irq", "acpi", "scsi", "asound"])),
    ("any_sysfs_file", || any_writable("/sys", 7)),
    ("release_agent", || any_named("/sys/fs/cgroup", "release_agent")),
    ("notify_on_release", || any_named("/sys/fs/cgroup", "notify_on_release")),
    ("raise_memory_limit", || any_named("/sys/fs/cgroup", "memory")),
    ("leave_control_group", || any_named("/sys/fs/cgroup", "cgroup.procs")),
    ("kcore", || read("/proc/kcore")),
    ("kmsg", || read("/dev/kmsg").or_else(|_| read("/proc/kmsg"))),
    ("keys_of_others", || read("/proc/keys")),
    ("kernel_addresses", kernel_addresses),
    ("dev_mem", || read("/dev/mem").or_else(|_| read("/dev/kmem"))),
    ("any_block_device", any_block_device),
    ("loop_control", || open_for_write("/dev/loop-control")),
    ("kvm", || open_for_write("/dev/kvm")),
    ("fuse", || open_for_write("/dev/fuse")),
    ("tun", || open_for_write("/dev/net/tun")),
    ("mknod_disk", || mknod(libc::S_IFBLK, 8, 0)),
    ("mknod_mem", || mknod(libc::S_IFCHR, 1, 1)),
    ("write_own_program", || open_for_write("/proc/self/exe")),
    ("write_main_program", || open_for_write("/proc/1/exe")),
    ("write_root", || open_for_write("/escaped")),
    ("write_etc", || open_for_write("/etc/escaped")),
    ("link_to_root", || link_write("/escaped")),
    ("link_to_core_pattern", || link_write("/proc/sys/kernel/core_pattern")),
    ("link_race", link_race),
    ("hard_link_of_program", hard_link),
    ("root_of_main", || host_at(Path::new("/proc/1/root"))),
    ("parents_of_root", || host_at(Path::new("/proc/self/root/../../../../../.."))),
    ("working_directory_of_main", || host_at(Path::new("/proc/1/cwd/../../../.."))),
    ("inherited_descriptors", inherited_descriptors),
    ("set_id_program", set_id_program),
    ("run_dropped_program", run_dropped),
    ("engine_socket", engine_socket),
    ("lower_oom_score", || write("/proc/self/oom_score_adj", b"-1000")),
    ("own_uid_map", || write("/proc/self/uid_map", b"0 0 1")),
];

fn written(path: &Path) -> String {
    format!("{} was opened for writing", path.display())
}

fn open_for_write(path: &str) -> Outcome {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    Ok(written(Path::new(path)))
}

/// Writes to a file what stands in it.
fn rewrite(path: &str) -> Outcome {
    let text = fs::read(path)?;
    write(path, &text)
}

fn write(path: &str, bytes: &[u8]) -> Outcome {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(bytes)?;
    Ok(written(Path::new(path)))
}

/// Reads some bytes.
fn read(path: &str) -> Outcome {
    let mut bytes = [0; 64];
    let count = File::open(path)?.read(&mut bytes)?;
    if count == 0 { nothing("empty") } else { Ok(format!("{count} bytes of {path}")) }
}

/// All regular files below a directory, as deep as that.
fn below(directory: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => below(&entry.path(), depth - 1, found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

/// Whether any file of those lets itself be opened for writing; else the last refusal.
fn any(files: &[PathBuf]) -> Outcome {
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for file in files {
        match OpenOptions::new().write(true).open(file) {
            Ok(_) => return Ok(written(file)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn any_writable(directory: &str, depth: u32) -> Outcome {
    let mut files = Vec::new();
    below(Path::new(directory), depth, &mut files);
    any(&files)
}

fn any_of(parts: &[&str]) -> Outcome {
    let mut files = Vec::new();
    for part in parts {
        below(&Path::new("/proc").join(part), 4, &mut files);
    }
    any(&files)
}

/// The same of files whose name begins so.
fn any_named(directory: &str, name: &str) -> Outcome {
    let mut files = Vec::new();
    below(Path::new(directory), 4, &mut files);
    files.retain(|file| {
        file.file_name().is_some_and(|found| found.as_bytes().starts_with(name.as_bytes()))
    });
    any(&files)
}

/// Addresses of the kernel, which defeat the randomisation of its layout.
fn kernel_addresses() -> Outcome {
    let text = fs::read_to_string("/proc/kallsyms")?;
    let known = text.lines().take(1000).find(|line| !line.starts_with("0000000000000000"));
    known.map_or_else(|| nothing("all zero"), |line| Ok(line.to_owned()))
}

fn any_block_device() -> Outcome {
    for entry in fs::read_dir("/dev")?.flatten() {
        if entry.file_type()?.is_block_device() {
            File::open(entry.path())?;
            return Ok(entry.path().display().to_string());
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENOENT))
}

fn mknod(kind: libc::mode_t, major: u32, minor: u32) -> Outcome {
    let path = c"/tmp/kiln-device";
    // SAFETY: the path is terminated.
    check(unsafe { libc::mknod(path.as_ptr(), kind | 0o600, libc::makedev(major, minor)) }.into())?;
    let opened = File::open("/tmp/kiln-device");
    fs::remove_file("/tmp/kiln-device")?;
    opened.map(|_| format!("the device {major}:{minor}"))
}

/// Writes through a link in writable space.
fn link_write(target: &str) -> Outcome {
    let link = "/tmp/kiln-link";
    let _ = fs::remove_file(link);
    symlink(target, link)?;
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(link);
    fs::remove_file(link)?;
    opened.map(|_| written(Path::new(target)))
}

/// Swaps a file and a link to a place outside in writable space, again and again, while it is
/// opened for writing: whoever looks first and opens afterwards is led astray.
fn link_race() -> Outcome {
    let (file, link) = (c"/tmp/kiln-file", c"/tmp/kiln-swap");
    fs::write("/tmp/kiln-file", "")?;
    let _ = fs::remove_file("/tmp/kiln-swap");
    symlink("/escaped", "/tmp/kiln-swap")?;
    let mut got = None;
    for _ in 0..2000 {
        // SAFETY: both paths are terminated.
        unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                libc::AT_FDCWD,
                file.as_ptr(),
                libc::AT_FDCWD,
                link.as_ptr(),
                libc::RENAME_EXCHANGE,
            );
        }
        let opened = OpenOptions::new().append(true).create(true).open("/tmp/kiln-file");
        if opened.is_ok() && Path::new("/escaped").exists() {
            got = Some(written(Path::new("/escaped")));
        }
    }
    let _ = fs::remove_file("/tmp/kiln-file");
    let _ = fs::remove_file("/tmp/kiln-swap");
    got.map_or_else(|| Err(io::Error::from_raw_os_error(libc::EROFS)), Ok)
}

fn hard_link() -> Outcome {
    fs::hard_link("/kiln-probe", "/tmp/kiln-hard")?;
    fs::remove_file("/tmp/kiln-hard")?;
    Ok("a file of the image in writable space".to_owned())
}

/// Whether a directory is the host's root rather than the instance's.
fn host_at(directory: &Path) -> Outcome {
    use std::os::unix::fs::MetadataExt as _;

    let id = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino()));
    if id(directory)? == id(Path::new("/"))? {
        return nothing("the instance's own root");
    }
    Ok(format!("{} is another root", directory.display()))
}

/// Descriptors of the main process that lead out: directories, or files of no mount of its own.
fn inherited_descriptors() -> Outcome {
    for entry in fs::read_dir("/proc/1/fd")?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let text = target.to_string_lossy().into_owned();
        let own = ["pipe:", "socket:", "anon_inode:", "/dev/", "/proc/", "/tmp/"];
        if !own.iter().any(|start| text.starts_with(start)) {
            return Ok(format!("descriptor {} leads to {text}", entry.path().display()));
        }
    }
    nothing("none leads out")
}

/// A set-user-id copy of this program in writable space.
fn set_id_program() -> Outcome {
    use std::os::unix::fs::PermissionsExt as _;

    fs::copy("/proc/self/exe", "/tmp/kiln-setid")?;
    let set = fs::set_permissions("/tmp/kiln-setid", fs::Permissions::from_mode(0o4755));
    let ran = std::process::Command::new("/tmp/kiln-setid").args(["exit", "0"]).status();
    fs::remove_file("/tmp/kiln-setid")?;
    set?;
    ran.map(|_| "a set-user-id program ran".to_owned())
}

fn run_dropped() -> Outcome {
    fs::copy("/proc/self/exe", "/tmp/kiln-dropped")?;
    let ran = std::process::Command::new("/tmp/kiln-dropped").args(["exit", "0"]).status();
    fs::remove_file("/tmp/kiln-dropped")?;
    ran.map(|_| "a program that was written ran".to_owned())
}

fn engine_socket() -> Outcome {
    let sockets = [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
        "/var/lib/kiln/run/kiln.sock",
        "/var/lib/kiln/run/launcher.sock",
    ];
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for socket in sockets {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(_) => return Ok(socket.to_owned()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A path for the kernel.
pub(super) fn path(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
