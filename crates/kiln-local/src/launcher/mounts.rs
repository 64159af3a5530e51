//! An instance's file system, put together by the child between clone and exec.
//!
//! Runs in the instance's own namespaces, as their root, with the base (see [`super::base`]) as
//! its view. Everything is mounted under [`NEW_ROOT`], then the base is left for good.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{chdir, pivot_root};

use super::base::{EMPTY_DIR, EMPTY_FILE, FILES, NEW_ROOT, attach, new_mount, new_mount_with};
use super::protocol::{DirectoryMount, FileMount, LaunchError, Stage, VolumeMount, WritableMount};
use super::sys::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, mount_setattr,
};
use super::user::Identity;

/// Parts of /proc that tell of or reach into the host. What the kernel lacks is skipped.
const HIDDEN_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "sysrq-trigger",
];
/// Parts of /proc through which the kernel is configured; they can be read.
const READ_ONLY_PROC: [&str; 4] = ["bus", "fs", "irq", "sys"];
/// Parts of /sys that tell of the host's firmware and power use.
const HIDDEN_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];
/// Lets programs without capabilities listen on every port of the instance's own network.
const PORT_START: &str = "sys/net/ipv4/ip_unprivileged_port_start";

type Step<T = ()> = Result<T, LaunchError>;

/// Attaches the image and makes it the place where the rest goes.
pub(crate) fn root(image: &OwnedFd) -> Step {
    attach(image, Path::new(NEW_ROOT))
        .map_err(|error| LaunchError::os(Stage::Root, "mount the image", error))
}

/// Mounts /proc with its host-wide parts hidden or read-only. Where the network is the process's
/// own, programs without capabilities may listen on every port of it.
pub(crate) fn proc(own_network: bool) -> Step {
    let fail = |what: &str, error| LaunchError::os(Stage::Proc, what, error);
    let at = inside("/proc");
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount =
        new_mount_with("proc", &[], attributes).map_err(|error| fail("new /proc", error))?;
    attach(&mount, &at)
        .map_err(|error| fail("mount on /proc (a directory of the image)", error))?;
    if own_network && at.join(PORT_START).exists() {
        fs::write(at.join(PORT_START), "0").map_err(|error| fail(PORT_START, error))?;
    }
    for part in READ_ONLY_PROC {
        read_only(&mount, part).map_err(|error| fail(part, error))?;
    }
    for part in HIDDEN_PROC {
        hide(&at.join(part)).map_err(|error| fail(part, error))?;
    }
    Ok(())
}

/// Mounts /sys read-only, with the instance's own control groups in it.
pub(super) fn sys(cgroups: &[CgroupView]) -> Step {
    let fail = |what: &str, error| LaunchError::os(Stage::Sys, what, error);
    let at = inside("/sys");
    let mount = new_mount_with("sysfs", &[], sealed()).map_err(|error| fail("new /sys", error))?;
    attach(&mount, &at).map_err(|error| fail("mount on /sys (a directory of the image)", error))?;
    for part in HIDDEN_SYS {
        hide(&at.join(part)).map_err(|error| fail(part, error))?;
    }
    mount_cgroups(&at.join("fs/cgroup"), cgroups).map_err(|error| fail("control groups", error))
}

/// One hierarchy as the instance sees it.
#[derive(Debug, Clone)]
pub(super) struct CgroupView {
    /// Where it stands under /sys/fs/cgroup; empty for the unified hierarchy alone.
    pub(super) name: String,
    /// The version 1 controllers of the hierarchy; none for the unified one.
    pub(super) controllers: Vec<String>,
}

fn mount_cgroups(at: &Path, views: &[CgroupView]) -> io::Result<()> {
    if views.iter().any(|view| !view.name.is_empty()) {
        let top = new_mount("tmpfs", &[("mode", "0755"), ("size", "16k")])?;
        for view in views {
            rustix::fs::mkdirat(&top, &view.name, Mode::from_raw_mode(0o755))?;
        }
        attach(&top, at)?;
        mount_setattr(top.as_fd(), c"", all_sealed())?;
    }
    for view in views {
        let mount = if view.controllers.is_empty() {
            new_mount_with("cgroup2", &[], sealed())?
        } else {
            let context =
                rustix::mount::fsopen("cgroup", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
            for controller in &view.controllers {
                rustix::mount::fsconfig_set_flag(context.as_fd(), controller.as_str())?;
            }
            rustix::mount::fsconfig_create(context.as_fd())?;
            let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
            rustix::mount::fsmount(context.as_fd(), flags, sealed())?
        };
        attach(&mount, &at.join(&view.name))?;
    }
    Ok(())
}

/// Mounts the prepared /dev read-only, and pseudo-terminals of the instance's own.
pub(crate) fn dev(dev: &OwnedFd) -> Step {
    let fail = |what: &str, error| LaunchError::os(Stage::Dev, what, error);
    let at = inside("/dev");
    attach(dev, &at).map_err(|error| fail("mount on /dev (a directory of the image)", error))?;
    let options = [("ptmxmode", "0666"), ("mode", "0620")];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = new_mount_with("devpts", &options, attributes)
        .map_err(|error| fail("new /dev/pts", error))?;
    attach(&pts, &at.join("pts")).map_err(|error| fail("/dev/pts", error))
}

/// Mounts a tmpfs for each writable place.
pub(super) fn writable(mounts: &[WritableMount], owner: &Identity) -> Step {
    for mount in mounts {
        let fail = |what: &str, error| {
            let place = format!("{what} {} ({} bytes)", mount.path, mount.size_bytes);
            LaunchError::os(Stage::Writable, place, error)
        };
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        if !mount.exec {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
        }
        let options = [
            ("size", mount.size_bytes.to_string()),
            ("nr_inodes", (mount.size_bytes / 1024).max(1024).to_string()),
            ("mode", format!("{:o}", mount.mode)),
            ("uid", owner.uid.to_string()),
            ("gid", owner.gid.to_string()),
        ];
        let options: Vec<(&str, &str)> =
            options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let fs = new_mount_with("tmpfs", &options, attributes)
            .map_err(|error| fail("new tmpfs for", error))?;
        attach_inside(&fs, &mount.path)
            .map_err(|error| fail("the image must have a directory to mount on at", error))?;
    }
    Ok(())
}

/// Attaches directories of the host, which the launcher has cloned, in their order.
pub(super) fn volumes(volumes: &[VolumeMount], mounts: &[OwnedFd]) -> Step {
    for (volume, mount) in volumes.iter().zip(mounts) {
        attach_inside(mount, &volume.path).map_err(|error| {
            let what = format!("the image must have a directory to mount on at {}", volume.path);
            LaunchError::os(Stage::Volumes, what, error)
        })?;
    }
    Ok(())
}

/// What a directory of the host is mounted with, besides being attached.
pub(super) fn volume_attributes(volume: &VolumeMount) -> u64 {
    let data = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    if volume.read_only { data | MOUNT_ATTR_RDONLY } else { data }
}

/// Mounts the given directories, read-only.
pub(super) fn directories(directories: &[DirectoryMount]) -> Step {
    for directory in directories {
        let fail = |error| {
            let what = format!("the image must have a directory to mount on at {}", directory.path);
            LaunchError::os(Stage::Files, what, error)
        };
        let bytes: usize = directory.files.values().map(|content| content.len() + 8192).sum();
        let size = (bytes + 8192).to_string();
        let store = new_mount("tmpfs", &[("mode", "0755"), ("size", &size)])
            .map_err(|error| LaunchError::os(Stage::Files, "new tmpfs", error))?;
        for (name, content) in &directory.files {
            write_file(&store, name, content, 0o644).map_err(fail)?;
        }
        mount_setattr(store.as_fd(), c"", all_sealed()).map_err(fail)?;
        attach_inside(&store, &directory.path).map_err(fail)?;
    }
    Ok(())
}

/// Mounts the given files, read-only, from one small tmpfs that is shown nowhere else.
pub(crate) fn files(files: &[FileMount]) -> Step {
    if files.is_empty() {
        return Ok(());
    }
    let fail = |what: &str, error| LaunchError::os(Stage::Files, what, error);
    let bytes: usize = files.iter().map(|file| file.content.len() + 8192).sum();
    let size = bytes.to_string();
    let store = new_mount("tmpfs", &[("mode", "0755"), ("size", &size)])
        .map_err(|error| fail("new tmpfs", error))?;
    for (index, file) in files.iter().enumerate() {
        let fail = |error| fail(&format!("mount on {} (a file of the image)", file.path), error);
        let name = index.to_string();
        write_file(&store, &name, &file.content, file.mode).map_err(fail)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        // Taken from an attached mount: detached ones can be cloned only since Linux 6.15.
        let at = Path::new(FILES);
        if index == 0 {
            attach(&store, at).map_err(fail)?;
        }
        let mount = rustix::mount::open_tree(rustix::fs::CWD, at.join(&name), flags)
            .map_err(|error| fail(error.into()))?;
        mount_setattr(mount.as_fd(), c"", all_sealed()).map_err(fail)?;
        attach_inside(&mount, &file.path).map_err(fail)?;
    }
    Ok(())
}

fn write_file(store: &OwnedFd, name: &str, content: &str, mode: u32) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(store, name, flags, Mode::from_raw_mode(mode))?;
    let mut written = 0;
    while written < content.len() {
        written += rustix::io::write(&fd, &content.as_bytes()[written..])?;
    }
    // The umask of the launcher must not narrow what was asked for.
    Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?)
}

/// Makes the new root the only thing that is left to be seen.
pub(crate) fn enter() -> Step {
    let enter = || -> io::Result<()> {
        chdir(NEW_ROOT)?;
        pivot_root(".", ".")?;
        // The old root now lies on top of the new one; "." is still the old one's place.
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(chdir("/")?)
    };
    enter().map_err(|error| LaunchError::os(Stage::Root, "pivot into the image", error))
}

pub(crate) fn inside(path: &str) -> PathBuf {
    Path::new(NEW_ROOT).join(path.trim_start_matches('/'))
}

/// Attaches at a path of the image, whose links must not lead out of it.
fn attach_inside(mount: &OwnedFd, path: &str) -> io::Result<()> {
    use rustix::fs::ResolveFlags;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(NEW_ROOT, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let target = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?;
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount.as_fd(), "", &target, "", flags)?)
}

/// Mounts emptiness over `path`, if that exists.
fn hide(path: &Path) -> io::Result<()> {
    let meta = match rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        meta => meta?,
    };
    let kind = rustix::fs::FileType::from_raw_mode(meta.st_mode);
    let empty = if kind.is_dir() { EMPTY_DIR } else { EMPTY_FILE };
    // The base is mounted read-only without devices and programs, and so is what is bound of it.
    Ok(rustix::mount::mount_bind(empty, path)?)
}

/// Makes `part` of the attached `mount` read-only, if it exists.
fn read_only(mount: &OwnedFd, part: &str) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = match rustix::mount::open_tree(mount.as_fd(), part, flags) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        clone => clone?,
    };
    mount_setattr(clone.as_fd(), c"", all_sealed())?;
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(clone.as_fd(), "", mount.as_fd(), part, flags)?)
}

/// Read-only, and nothing in it is more than data.
fn sealed() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

fn all_sealed() -> u64 {
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
}
