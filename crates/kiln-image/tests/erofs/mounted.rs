//! Mounts an image and compares every entry with the tree that it was written from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_image::erofs::{self, Options};
use kiln_image::tree::{Kind, Metadata, NodeId, Tree, Visit};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Writes `tree` into a new file in `directory`.
pub(crate) fn image(tree: &Tree, options: Options, directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    let mut file = fs::File::create(&path).unwrap();
    let summary = erofs::write(tree, options, &mut file).unwrap();
    assert_eq!(summary.length, file.metadata().unwrap().len());
    assert_eq!(summary.length % 4096, 0);
    path
}

/// Asserts that `image` passes `fsck.erofs`, and reads and mounts as exactly `tree`.
pub(crate) fn verify(test: &str, tree: &Tree, image: &Path) {
    fsck(test, image);
    crate::read::compare_read(tree, image);
    compare_mounted(test, tree, image);
}

/// Asserts that `image` mounts as exactly `tree`.
pub(crate) fn compare_mounted(test: &str, tree: &Tree, image: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| in_own_mount_namespace(image, scratch.path(), tree)).join()
    });
    match seen {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => eprintln!("skipped: {test}: {reason}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn fsck(test: &str, image: &Path) {
    match Command::new("fsck.erofs").arg(image).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => eprintln!("skipped: {test}: fsck.erofs (Debian: erofs-utils): {error}"),
    }
}

/// Mounts and compares in a thread whose mount namespace ends with it, and the mount with that.
fn in_own_mount_namespace(image: &Path, target: &Path, tree: &Tree) -> Result<(), String> {
    // SAFETY: only this thread's mount namespace and working directory are unshared; no other
    // code runs in the thread, and no descriptor table is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|error| format!("unshare: {error}"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| format!("cannot make mounts private: {error}"))?;
    match mount(image, target, "erofs", MountFlags::RDONLY, None) {
        Ok(()) => {}
        Err(error @ (rustix::io::Errno::NODEV | rustix::io::Errno::NOTBLK)) => {
            return Err(format!("this kernel mounts no EROFS file: {error}"));
        }
        Err(error) => panic!("the kernel refuses the image: {error}"),
    }
    compare(tree, target);
    Ok(())
}

fn compare(tree: &Tree, root: &Path) {
    let mut names: BTreeMap<NodeId, u64> = BTreeMap::new();
    for visit in tree.walk() {
        *names.entry(visit.id).or_default() += 1;
    }
    let mut inodes: BTreeMap<NodeId, u64> = BTreeMap::new();
    for visit in tree.walk() {
        let path = root.join(OsStr::from_bytes(&visit.path));
        let metadata = fs::symlink_metadata(&path).unwrap();
        compare_metadata(visit.inode.metadata(), &path, &metadata);
        let ino = *inodes.entry(visit.id).or_insert(metadata.ino());
        assert_eq!(metadata.ino(), ino, "{}: hard links share an inode", path.display());
        compare_kind(tree, &visit, &path, names[&visit.id], &metadata);
    }
    let mut distinct: Vec<_> = inodes.values().collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), inodes.len(), "no two inodes share a number");
}

fn compare_metadata(expected: &Metadata, path: &Path, metadata: &fs::Metadata) {
    let shown = path.display();
    assert_eq!(metadata.mode() & 0o7777, u32::from(expected.mode), "mode of {shown}");
    assert_eq!((metadata.uid(), metadata.gid()), (expected.uid, expected.gid), "{shown}");
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (expected.mtime, 0), "{shown}");
    assert_eq!(xattrs(path), expected.xattrs, "extended attributes of {shown}");
}

fn compare_kind(tree: &Tree, visit: &Visit<'_>, path: &Path, names: u64, found: &fs::Metadata) {
    let shown = path.display();
    let kind = found.file_type();
    match visit.inode.kind() {
        Kind::Directory(children) => {
            assert!(kind.is_dir(), "{shown}");
            let mut listed: Vec<_> = fs::read_dir(path).unwrap().map(Result::unwrap).collect();
            listed.sort_by_key(fs::DirEntry::file_name);
            let listed: Vec<_> = listed.iter().map(|e| e.file_name().into_vec()).collect();
            let expected: Vec<_> = children.iter().map(|(name, _)| name.to_vec()).collect();
            assert_eq!(listed, expected, "entries of {shown}");
            let below = children.iter().filter(|(_, id)| tree.inode(*id).is_directory()).count();
            assert_eq!(found.nlink(), 2 + below as u64, "links of {shown}");
        }
        Kind::File(content) => {
            assert!(kind.is_file(), "{shown}");
            assert_eq!(found.len(), content.len(), "length of {shown}");
            assert!(fs::read(path).unwrap() == content.read().unwrap(), "content of {shown}");
            assert_eq!(found.nlink(), names, "links of {shown}");
        }
        Kind::Symlink(target) => {
            let found = fs::read_link(path).unwrap();
            assert_eq!(found.as_os_str().as_bytes(), &**target, "target of {shown}");
        }
        Kind::Fifo => assert!(kind.is_fifo(), "{shown}"),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    names.truncate(length);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (name.to_vec(), xattr(path, name))).collect()
}

fn xattr(path: &Path, name: &[u8]) -> Vec<u8> {
    let mut value = vec![0; 65_536];
    let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
    value.truncate(length);
    value
}
