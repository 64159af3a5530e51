//! Trees go out and come back the same; what a program does is found, and nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::tree::{Inode, Kind, Metadata, Tree};

/// What times become that are later.
const LATEST: i64 = 1_000_000_000;

/// Everything of a tree, a line for each name.
fn listed(tree: &Tree) -> Vec<String> {
    let mut firsts = HashMap::new();
    let line = |visit: crate::tree::Visit<'_>| {
        let first = firsts.entry(visit.id).or_insert_with(|| visit.path.clone()).clone();
        let kind = match visit.inode.kind() {
            Kind::Directory(_) => "directory".to_owned(),
            Kind::File(content) => format!("file {:?}", content.read().unwrap()),
            Kind::Symlink(target) => format!("to {}", target.escape_ascii()),
            Kind::Fifo => "fifo".to_owned(),
        };
        let first = first.escape_ascii().to_string();
        format!("{} = {first} {kind} {:?}", visit.path.escape_ascii(), visit.inode.metadata())
    };
    tree.walk().map(line).collect()
}

/// Lays a tree out, lets `work` happen and gathers; none where this user may not.
fn through(test: &str, tree: &Tree, work: impl FnOnce(&Path)) -> Option<(TempDir, Gathered)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: {test}: only root may give files away");
        return None;
    }
    let place = tempfile::tempdir().unwrap();
    let laid = Laid::out(tree, &place.path().join("root")).unwrap();
    work(laid.path());
    let gathered = laid.gather(tree, LATEST).unwrap();
    Some((place, gathered))
}

fn sample() -> Tree {
    let mut tree = Tree::new();
    let of = |mode| Metadata::new(mode).owned_by(1000, 50).modified_at(777_000_000);
    tree.insert("etc", Inode::directory(of(0o2755))).unwrap();
    tree.insert("etc/conf", Inode::file(of(0o640), b"one".to_vec())).unwrap();
    tree.insert("etc/new", Inode::file(of(0o644).modified_at(2_000_000_000), vec![7; 9])).unwrap();
    tree.link("etc/conf", "same").unwrap();
    tree.insert("lib", Inode::symlink(of(0), "etc")).unwrap();
    tree.insert("out", Inode::symlink(of(0), "/etc/shadow")).unwrap();
    tree.insert("pipe", Inode::fifo(of(0o600))).unwrap();
    let able = of(0o755).with_xattr("security.capability", {
        // CAP_NET_BIND_SERVICE, permitted and effective, revision 2 of linux/capability.h.
        [1_u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    });
    tree.insert("able", Inode::file(able, b"#!".to_vec())).unwrap();
    tree
}

#[test]
fn what_nobody_touches_comes_back_as_it_was() {
    let tree = sample();
    let Some((_place, gathered)) =
        through("what_nobody_touches_comes_back_as_it_was", &tree, |_| {})
    else {
        return;
    };
    assert_eq!(listed(&gathered.tree), listed(&tree));
    assert!(gathered.warnings.is_empty());
}

#[test]
fn what_is_done_is_found_and_told_in_no_later_time() {
    let tree = sample();
    let done = through("what_is_done_is_found_and_told_in_no_later_time", &tree, |root| {
        fs::write(root.join("etc/conf"), "two").unwrap();
        fs::remove_file(root.join("pipe")).unwrap();
        fs::create_dir(root.join("srv")).unwrap();
        fs::write(root.join("srv/page"), "hello").unwrap();
        chown(root.join("srv/page"), Some(33), Some(34)).unwrap();
        fs::set_permissions(root.join("srv/page"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("/etc/passwd", root.join("srv/link")).unwrap();
        drop(UnixListener::bind(root.join("srv/socket")).unwrap());
        // Same size, same time: told by the time of change.
        let old = fs::metadata(root.join("etc/new")).unwrap().modified().unwrap();
        let file = fs::OpenOptions::new().write(true).open(root.join("etc/new")).unwrap();
        fs::write(root.join("etc/new"), [8; 9]).unwrap();
        file.set_modified(old).unwrap();
    });
    let Some((_place, Gathered { tree: after, warnings })) = done else { return };
    let at = |path: &str| after.get(path).unwrap().metadata().clone();
    let text = |path: &str| after.get(path).unwrap().content().unwrap().read().unwrap();
    assert_eq!((text("etc/conf"), text("same")), (b"two".to_vec(), b"two".to_vec()));
    assert_eq!((at("etc/conf").mtime, at("etc/conf").uid), (LATEST, 1000));
    assert_eq!((text("etc/new"), at("etc/new").mtime), (vec![8; 9], 2_000_000_000));
    assert!(after.get("pipe").is_none() && after.get("srv/socket").is_none());
    let page = at("srv/page");
    assert_eq!((page.mode, page.uid, page.gid, page.mtime), (0o755, 33, 34, LATEST));
    let link = after.get("srv/link").unwrap();
    assert!(matches!(link.kind(), Kind::Symlink(target) if **target == *b"/etc/passwd"));
    assert_eq!(at("able"), sample().get("able").unwrap().metadata().clone());
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_device_is_refused_by_name() {
    let test = "a_device_is_refused_by_name";
    if !rustix::process::geteuid().is_root() {
        println!("skipped: {test}: only root may make devices");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let laid = Laid::out(&Tree::new(), &place.path().join("root")).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, laid.path().join("null"), kind, mode, device).unwrap();
    let error = laid.gather(&Tree::new(), LATEST).unwrap_err().to_string();
    assert!(error.contains("null") && error.contains("character device"), "{error}");
}

/// Adds an entry of a random kind below one of the directories there are.
fn grow(tree: &mut Tree, at: usize, (kind, under, name, mode): (u8, usize, String, u16)) {
    let directories: Vec<Vec<u8>> =
        tree.walk().filter(|v| v.inode.is_directory()).map(|v| v.path).collect();
    let files: Vec<Vec<u8>> =
        tree.walk().filter(|v| v.inode.content().is_some()).map(|v| v.path).collect();
    let mut path = directories[under % directories.len()].clone();
    path.extend(format!("/{name}{at}").as_bytes());
    let id = u32::from(mode) * 7 % 60_000;
    let metadata = Metadata::new(mode).owned_by(id, id / 2).modified_at(i64::from(mode) * 1_000);
    let inode = match kind {
        0 => Inode::directory(metadata),
        1 => Inode::symlink(metadata, format!("../{name}")),
        2 => Inode::fifo(metadata),
        3 if !files.is_empty() => {
            tree.link(&files[under % files.len()], &path).unwrap();
            return;
        }
        _ => Inode::file(metadata, name.repeat(usize::from(mode) % 50).into_bytes()),
    };
    tree.insert(&path, inode).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_tree_comes_back(
        plans in vec((0..6_u8, any::<usize>(), "[a-zäö .-]{1,6}", 0..0o10_000_u16), 0..60),
    ) {
        let mut tree = Tree::new();
        for (at, plan) in plans.into_iter().enumerate() {
            grow(&mut tree, at, plan);
        }
        if let Some((_place, gathered)) = through("any_tree_comes_back", &tree, |_| {}) {
            prop_assert_eq!(listed(&gathered.tree), listed(&tree));
        }
    }
}
