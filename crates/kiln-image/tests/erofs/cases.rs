//! Trees at the edges of the format.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use kiln_image::erofs::{self, Options, WriteError};
use kiln_image::tree::{Content, Inode, Metadata, Tree};

use crate::mounted::{compare_mounted, image, verify};

fn metadata() -> Metadata {
    Metadata::new(0o644)
}

fn directory() -> Inode {
    Inode::directory(Metadata::new(0o755))
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect()
}

pub(crate) fn check(test: &str, tree: &Tree) {
    let scratch = tempfile::tempdir().unwrap();
    let image = image(tree, Options::default(), scratch.path(), "image");
    verify(test, tree, &image);
}

#[test]
fn an_empty_tree_is_one_block() {
    let mut out = Vec::new();
    let summary = erofs::write(&Tree::new(), Options::default(), &mut out).unwrap();
    assert_eq!((summary.length, summary.inodes, out.len()), (4096, 1, 4096));
    check("an_empty_tree_is_one_block", &Tree::new());
}

#[test]
fn five_thousand_entries_in_one_directory() {
    let mut tree = Tree::new();
    tree.insert("many", directory()).unwrap();
    for number in 0..5000 {
        let content = format!("{number}");
        let inode = Inode::file(metadata(), content.as_bytes());
        tree.insert(format!("many/entry-{number}"), inode).unwrap();
    }
    check("five_thousand_entries_in_one_directory", &tree);
}

#[test]
fn names_of_255_bytes_and_of_any_byte() {
    let mut tree = Tree::new();
    for number in 0..40_u8 {
        let mut name = vec![b'n'; 255];
        name[254] = b'A' + number;
        tree.insert(name, Inode::fifo(metadata())).unwrap();
    }
    for byte in (1..=255_u8).filter(|byte| *byte != b'/' && *byte != b'.') {
        tree.insert([byte], Inode::file(metadata(), [byte].as_slice())).unwrap();
    }
    tree.insert("...", Inode::symlink(metadata(), "\u{1}")).unwrap();
    check("names_of_255_bytes_and_of_any_byte", &tree);
}

#[test]
fn contents_around_the_block_size() {
    let mut tree = Tree::new();
    for length in [0, 1, 4031, 4032, 4033, 4063, 4064, 4065, 4095, 4096, 4097, 8191, 8192, 8193] {
        tree.insert(format!("f{length}"), Inode::file(metadata(), bytes(length))).unwrap();
        let late = metadata().modified_at(i64::from(u32::MAX) + 1);
        tree.insert(format!("late{length}"), Inode::file(late, bytes(length))).unwrap();
    }
    for length in [1, 59, 60, 4063, 4064, 4065, 4095] {
        let target = vec![b't'; length];
        tree.insert(format!("s{length}"), Inode::symlink(metadata(), target)).unwrap();
    }
    check("contents_around_the_block_size", &tree);
}

#[test]
fn owners_modes_times_and_attributes() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut tree = Tree::new();
    let ping = Metadata::new(0o4755).with_xattr("security.capability", capability);
    tree.insert("ping", Inode::file(ping, bytes(3000))).unwrap();
    let owned = Metadata::new(0o2770).owned_by(65_536, 4_294_967_294).modified_at(-7);
    tree.insert("owned", Inode::directory(owned.with_xattr("user.note", "x"))).unwrap();
    tree.insert("sticky", Inode::directory(Metadata::new(0o1777))).unwrap();
    for size in [1, 3000, 4060, 5000, 20_000, 65_535] {
        let big = metadata().with_xattr("user.big", bytes(size)).with_xattr("trusted.a", "b");
        tree.insert(format!("big{size}"), Inode::file(big, bytes(100))).unwrap();
    }
    check("owners_modes_times_and_attributes", &tree);
}

#[test]
fn hard_links_share_one_inode() {
    let mut tree = Tree::new();
    tree.insert("d", directory()).unwrap();
    tree.insert("d/first", Inode::file(metadata(), bytes(9000))).unwrap();
    tree.link("d/first", "before").unwrap();
    tree.link("d/first", "d/second").unwrap();
    tree.insert("link", Inode::symlink(metadata(), "before")).unwrap();
    tree.link("link", "d/link").unwrap();
    tree.insert("gone", Inode::file(metadata(), bytes(50_000))).unwrap();
    tree.remove("gone").unwrap();
    let mut out = Vec::new();
    assert_eq!(erofs::write(&tree, Options::default(), &mut out).unwrap().inodes, 4);
    assert!(out.len() < 50_000, "what was removed takes no room");
    check("hard_links_share_one_inode", &tree);
}

#[test]
fn more_links_than_a_compact_inode_counts() {
    let mut tree = Tree::new();
    tree.insert("0", Inode::file(metadata(), "x".as_bytes())).unwrap();
    for number in 1..65_600 {
        tree.link("0", format!("{number}")).unwrap();
    }
    check("more_links_than_a_compact_inode_counts", &tree);
}

#[test]
fn directories_as_deep_as_a_path_can_be() {
    let mut tree = Tree::new();
    // The test's own directory stands before it in the kernel's path limit.
    let path = "d/".repeat(1900);
    tree.make_directories(&path, &Metadata::new(0o755)).unwrap();
    tree.insert(format!("{path}bottom"), Inode::file(metadata(), "b".as_bytes())).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let image = image(&tree, Options::default(), scratch.path(), "image");
    compare_mounted("directories_as_deep_as_a_path_can_be", &tree, &image);
}

#[test]
fn contents_on_disk_are_copied_from_where_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let spool = scratch.path().join("spool");
    let all = bytes(1_000_000);
    std::fs::write(&spool, &all).unwrap();
    let stored = |offset, length| Content::Stored { path: Arc::from(&*spool), offset, length };
    let (mut from_disk, mut from_memory) = (Tree::new(), Tree::new());
    for (offset, length) in [(0_u64, 1_000_000_u64), (1, 4096), (5, 0), (77, 10), (300, 600_001)] {
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
        let name = format!("{offset}");
        from_disk.insert(&name, Inode::file(metadata(), stored(offset, length))).unwrap();
        from_memory.insert(&name, Inode::file(metadata(), &all[range])).unwrap();
    }
    let one = image(&from_disk, Options::default(), scratch.path(), "one");
    let two = image(&from_memory, Options::default(), scratch.path(), "two");
    assert!(std::fs::read(&one).unwrap() == std::fs::read(two).unwrap());
    verify("contents_on_disk_are_copied_from_where_they_are", &from_memory, &one);
}

#[test]
fn a_content_that_shrank_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let spool = scratch.path().join("spool");
    File::create(&spool).unwrap().write_all_at(b"short", 0).unwrap();
    let content = Content::Stored { path: Arc::from(&*spool), offset: 2, length: 9000 };
    let mut tree = Tree::new();
    tree.insert("etc", directory()).unwrap();
    tree.insert("etc/motd", Inode::file(metadata(), content)).unwrap();
    let refused = erofs::write(&tree, Options::default(), &mut Vec::new()).unwrap_err();
    let start = "cannot read the content of \"etc/motd\" for the image: ";
    assert!(refused.to_string().starts_with(start), "{refused}");
    assert!(refused.to_string().contains("/spool;"), "{refused}");
}

#[test]
fn a_tree_beyond_the_address_space_is_refused_before_anything_is_written() {
    let content =
        Content::Stored { path: Path::new("/never-opened").into(), offset: 0, length: 1 << 44 };
    let mut tree = Tree::new();
    tree.insert("huge", Inode::file(metadata(), content)).unwrap();
    let mut out = Vec::new();
    let refused = erofs::write(&tree, Options::default(), &mut out);
    assert!(matches!(refused, Err(WriteError::TooLarge)));
    assert_eq!(out.len(), 0);
}

#[test]
fn a_full_disk_is_an_error() {
    let full = File::options().write(true).open("/dev/full");
    let Ok(mut full) = full else {
        eprintln!("skipped: a_full_disk_is_an_error: no /dev/full");
        return;
    };
    let refused = erofs::write(&Tree::new(), Options::default(), &mut full);
    assert!(matches!(refused, Err(WriteError::Sink { .. })));
}
