//! The launcher's own mount namespace: nothing but /proc, /sys and a /dev for instances.
//!
//! Every instance's mount namespace starts as a copy of the launcher's. Were that the host's, each
//! start would copy and tear down the host's whole mount table, and a fault between clone and
//! pivot would expose it. So the launcher lives in a namespace of four mounts and reaches the host
//! through one descriptor of its root, opened before: `/proc/self/fd/N` stands for the host's `/`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::process::{chdir, fchdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::sys::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, make_private,
    mount_setattr,
};

/// Where an instance's root is put together, in the base.
pub(crate) const NEW_ROOT: &str = "/root";
/// The prepared /dev, in the base.
const DEV: &str = "/dev";
/// Where an instance's own files are gathered, in the base.
pub(crate) const FILES: &str = "/files";
/// Mounted over directories that instances must not see.
pub(crate) const EMPTY_DIR: &str = "/empty";
/// Mounted over files that instances must not see.
pub(crate) const EMPTY_FILE: &str = "/nothing";

/// Major and minor numbers of the devices every program may use, from the kernel's
/// Documentation/admin-guide/devices.txt.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Links in /dev, and where they point.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The way from the launcher's own mount namespace to the host's.
#[derive(Debug)]
pub(crate) struct Base {
    host: OwnedFd,
    /// The mount namespaces: the host's, and the launcher's own.
    outside: OwnedFd,
    inside: OwnedFd,
}

impl Base {
    /// Moves the calling process into a new base. The process must have one thread.
    pub(crate) fn enter() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let host = rustix::fs::open("/", flags, Mode::empty())?;
        let outside = own_mount_namespace()?;
        // SAFETY: one thread, whose view of the file system is meant to change.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        let top = new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")])?;
        // Any directory will do to stand on: the root is left behind below.
        attach(&top, Path::new("/proc"))?;
        fchdir(&top)?;
        rustix::process::umask(Mode::empty());
        make_dirs(&["proc", "sys", "dev", "root", "files", "empty"])?;
        fs::write("nothing", "")?;
        attach(&new_mount("tmpfs", &[("mode", "0755"), ("size", "16k")])?, Path::new("dev"))?;
        fill_dev()?;
        attach(&new_mount("proc", &[])?, Path::new("proc"))?;
        attach(&new_mount("sysfs", &[])?, Path::new("sys"))?;
        pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        chdir("/")?;
        let data = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
        mount_setattr(rustix::fs::CWD, c"/", data | MOUNT_ATTR_NODEV)?;
        mount_setattr(rustix::fs::CWD, c"/dev", data)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(Self { host, outside, inside: own_mount_namespace()? })
    }

    /// A mount of the prepared /dev for one instance, attached nowhere yet.
    pub(crate) fn dev_mount() -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(rustix::mount::open_tree(rustix::fs::CWD, DEV, flags)?)
    }

    /// A mount of the host's directory at `path` and nothing that is mounted below it, attached
    /// nowhere yet. What happens to the host's mounts does not reach it.
    pub(crate) fn bind(&self, path: &Path) -> io::Result<OwnedFd> {
        // A mount can be cloned only by who is in its namespace.
        move_into(&self.outside)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = rustix::mount::open_tree(rustix::fs::CWD, path, flags);
        if move_into(&self.inside).is_err() {
            // What is started from here would see all of the host.
            eprintln!("launcher: the way back into its own mount namespace is barred");
            std::process::abort();
        }
        let mount = mount?;
        make_private(mount.as_fd())?;
        Ok(mount)
    }

    /// `path`, an absolute path of the host, as the launcher reaches it.
    pub(crate) fn host(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/self/fd/{}", self.host.as_raw_fd()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

fn own_mount_namespace() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty())?)
}

/// Root and working directory are those of the namespace then.
fn move_into(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}

fn make_dirs(names: &[&str]) -> io::Result<()> {
    for name in names {
        rustix::fs::mkdir(*name, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

fn fill_dev() -> io::Result<()> {
    make_dirs(&["dev/pts", "dev/shm"])?;
    for (name, major, minor) in DEVICES {
        let path = Path::new("dev").join(name);
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, mode, device)?;
    }
    for (name, target) in LINKS {
        symlink(target, Path::new("dev").join(name))?;
    }
    Ok(())
}

/// A new instance of the file system `kind`, mounted nowhere yet.
pub(crate) fn new_mount(kind: &str, options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    new_mount_with(kind, options, MountAttrFlags::empty())
}

/// As [`new_mount`], with attributes such as read-only. An option without a value is a flag.
pub(crate) fn new_mount_with(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Attaches the detached `mount` at `target`.
pub(crate) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", rustix::fs::CWD, target, flags)?;
    Ok(())
}
