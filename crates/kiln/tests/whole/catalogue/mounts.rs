//! What is done to the mounts of an instance.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::range::{Losses, Range, Victim};
use crate::site::site_or_skip;

/// Does something in the mount namespace of the victim, with its view of files; nothing is executed
/// there.
fn inside(victim: &Victim, work: impl FnOnce() -> rustix::io::Result<()> + Send) {
    let namespace = File::open(format!("/proc/{}/ns/mnt", victim.pid)).unwrap();
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            // SAFETY: a thread of its own, which shares no view of files with others from now on.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
            work()
        });
        there.join().unwrap().unwrap();
    });
}

/// A mount of a directory of the machine, attached nowhere.
fn of_the_host(path: &Path) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(rustix::fs::CWD, path, flags).unwrap()
}

#[test]
fn what_is_mounted_is_found_and_answered() {
    let site = site_or_skip!("what_is_mounted_is_found_and_answered");
    let mut range = Range::new(site);
    range.row("something is mounted over a directory", Losses::None, |_, victim| {
        inside(victim, || mount("none", "/proc/sys", "tmpfs", MountFlags::empty(), None));
    });
    range.row("something is mounted over a file", Losses::None, |_, victim| {
        inside(victim, || mount_bind("/dev/null", "/etc/hosts"));
    });
    range.row("the root is remounted to be written to", Losses::None, |_, victim| {
        inside(victim, || mount_remount("/", MountFlags::BIND, ""));
    });
    range.row("writable space is remounted for programs", Losses::None, |_, victim| {
        inside(victim, || mount_remount("/tmp", MountFlags::BIND, ""));
    });
    range.row("a mount is taken away", Losses::None, |_, victim| {
        inside(victim, || unmount("/etc/hosts", rustix::mount::UnmountFlags::DETACH));
    });
    range.row("a directory of the machine is mounted", Losses::None, |_, victim| {
        let host = of_the_host(Path::new("/usr"));
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        inside(victim, || move_mount(host.as_fd(), "", rustix::fs::CWD, "/tmp", flags));
    });
}
