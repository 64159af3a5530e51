//! What a tree accepts, where things land, and what it refuses.

use super::{Inode, Kind, MAX_NAME, MAX_PATH, Metadata, Tree, TreeError};

fn directory() -> Inode {
    Inode::directory(Metadata::new(0o755))
}

fn file(text: &str) -> Inode {
    Inode::file(Metadata::new(0o644), text.as_bytes())
}

fn link_to(target: &str) -> Inode {
    Inode::symlink(Metadata::new(0o777), target)
}

fn text(tree: &Tree, path: &str) -> String {
    let content = tree.resolve(path).unwrap().content().unwrap().read().unwrap();
    String::from_utf8(content).unwrap()
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.walk().map(|visit| String::from_utf8_lossy(&visit.path).into_owned()).collect()
}

/// A tree as Debian lays it out: `/bin` is a symlink to `usr/bin`.
fn usrmerged() -> Tree {
    let mut tree = Tree::new();
    tree.make_directories("usr/bin", &Metadata::new(0o755)).unwrap();
    tree.insert("bin", link_to("usr/bin")).unwrap();
    tree
}

#[test]
fn an_insert_through_a_symlink_lands_where_it_leads() {
    let mut tree = usrmerged();
    tree.insert("./bin/sh", file("dash")).unwrap();
    assert_eq!(text(&tree, "/usr/bin/sh"), "dash");
    assert_eq!(paths(&tree), ["", "bin", "usr", "usr/bin", "usr/bin/sh"]);
}

#[test]
fn a_directory_put_on_a_symlink_to_a_directory_keeps_the_symlink() {
    let mut tree = usrmerged();
    tree.replace("bin", Inode::directory(Metadata::new(0o700))).unwrap();
    assert!(matches!(tree.get("bin").unwrap().kind(), Kind::Symlink(_)));
    assert_eq!(tree.get("usr/bin").unwrap().metadata().mode, 0o700);
}

#[test]
fn symlink_targets_stop_at_the_root() {
    let mut tree = usrmerged();
    tree.insert("usr/up", link_to("../../../../usr/./bin")).unwrap();
    tree.insert("usr/abs", link_to("/../usr//bin/")).unwrap();
    tree.insert("usr/up/a", file("a")).unwrap();
    tree.insert("usr/abs/b", file("b")).unwrap();
    assert_eq!(text(&tree, "usr/bin/a"), "a");
    assert_eq!(text(&tree, "usr/bin/b"), "b");
    tree.insert("here", link_to(".")).unwrap();
    tree.insert("here/c", file("c")).unwrap();
    assert_eq!(text(&tree, "c"), "c");
}

#[test]
fn symlinks_in_a_circle_are_refused() {
    let mut tree = Tree::new();
    tree.insert("a", link_to("b")).unwrap();
    tree.insert("b", link_to("a")).unwrap();
    assert!(matches!(tree.insert("a/x", file("")), Err(TreeError::Loop { .. })));
    assert!(matches!(tree.resolve("a"), Err(TreeError::Loop { .. })));
    assert!(tree.get("a").is_some());
}

#[test]
fn paths_that_escape_or_do_not_fit_are_refused() {
    let mut tree = Tree::new();
    assert!(matches!(tree.insert("", file("")), Err(TreeError::Empty)));
    for path in ["..", "../etc", "a/../b", "/.."] {
        let refused = tree.insert(path, file("")).unwrap_err();
        assert!(matches!(refused, TreeError::Parent { .. }), "{path}: {refused}");
    }
    assert!(matches!(tree.insert("a\0b", file("")), Err(TreeError::Nul { .. })));
    tree.insert(vec![b'n'; MAX_NAME], file("")).unwrap();
    let long = tree.insert(vec![b'n'; MAX_NAME + 1], file(""));
    assert!(matches!(long, Err(TreeError::LongName { length: 256, .. })));
    let long = tree.insert(b"a/".repeat(MAX_PATH / 2 + 1), file(""));
    assert!(matches!(long, Err(TreeError::LongPath { length: 4096, .. })));
    assert!(matches!(tree.insert("no/x", file("")), Err(TreeError::NoDirectory { .. })));
    assert!(matches!(tree.remove("/"), Err(TreeError::Root { .. })));
    assert!(matches!(tree.insert("/", directory()), Err(TreeError::Exists { .. })));
    tree.insert("dangling", link_to("\u{1}")).unwrap();
    assert!(matches!(tree.insert("empty", link_to("")), Err(TreeError::Target { .. })));
    let message = tree.insert("a\u{7}b/c", file("")).unwrap_err().to_string();
    assert!(message.starts_with("\"a\\u{7}b/c\" needs a directory \"a\\u{7}b\""), "{message}");
}

#[test]
fn metadata_that_no_image_holds_is_refused() {
    let mut tree = Tree::new();
    let odd = Inode::file(Metadata::new(0o10_644), b"".as_slice());
    assert!(matches!(tree.insert("x", odd), Err(TreeError::Mode { .. })));
    for (name, size) in [("mine.a", 1), ("user.", 1), ("user.big", 65_536), ("user.n\0", 1)] {
        let metadata = Metadata::new(0o644).with_xattr(name, vec![0; size]);
        let refused = tree.insert("x", Inode::file(metadata, b"".as_slice()));
        assert!(matches!(refused, Err(TreeError::Xattr { .. })), "{name}");
    }
    let fits = Metadata::new(0o4755).with_xattr("security.capability", vec![1; 20]);
    tree.insert("x", Inode::file(fits, b"".as_slice())).unwrap();
}

#[test]
fn files_and_directories_never_replace_each_other() {
    let mut tree = Tree::new();
    tree.insert("d", directory()).unwrap();
    tree.insert("f", file("1")).unwrap();
    assert!(matches!(tree.insert("f", file("2")), Err(TreeError::Exists { .. })));
    assert!(matches!(tree.replace("d", file("2")), Err(TreeError::IsADirectory { .. })));
    assert!(matches!(tree.replace("f", directory()), Err(TreeError::NotADirectory { .. })));
    tree.replace("f", file("2")).unwrap();
    assert_eq!(text(&tree, "f"), "2");
    tree.remove("d").unwrap();
    assert!(matches!(tree.remove("d"), Err(TreeError::NotFound { .. })));
    assert_eq!(paths(&tree), ["", "f"]);
}

#[test]
fn hard_links_share_an_inode_until_one_name_is_replaced() {
    let mut tree = Tree::new();
    let id = tree.insert("a", file("1")).unwrap();
    assert_eq!(tree.link("a", "b").unwrap(), id);
    assert!(matches!(tree.link("missing", "c"), Err(TreeError::NotFound { .. })));
    tree.set_metadata("b", Metadata::new(0o600)).unwrap();
    assert_eq!(tree.get("a").unwrap().metadata().mode, 0o600);
    tree.replace("a", file("2")).unwrap();
    assert_eq!((text(&tree, "a"), text(&tree, "b")), ("2".into(), "1".into()));
}

#[test]
fn merge_lays_the_upper_tree_over_the_lower() {
    let mut lower = usrmerged();
    lower.insert("usr/bin/a", file("lower")).unwrap();
    let mut upper = Tree::new();
    upper.insert("bin", Inode::directory(Metadata::new(0o755))).unwrap();
    upper.insert("bin/a", file("upper")).unwrap();
    upper.link("bin/a", "bin/b").unwrap();
    lower.merge(&upper).unwrap();
    assert_eq!(paths(&lower), ["", "bin", "usr", "usr/bin", "usr/bin/a", "usr/bin/b"]);
    assert_eq!(text(&lower, "bin/a"), "upper");
    let ids: Vec<_> = lower.walk().skip(4).map(|visit| visit.id).collect();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn walks_in_byte_order_whatever_the_order_of_insertion() {
    let names = ["b", "a-", "a", "é", "B", "a/x"];
    let mut forward = Tree::new();
    forward.insert("a", directory()).unwrap();
    for name in names.iter().filter(|name| **name != "a") {
        forward.insert(name, file(name)).unwrap();
    }
    let mut backward = Tree::new();
    backward.insert("a", directory()).unwrap();
    for name in names.iter().rev().filter(|name| **name != "a") {
        backward.insert(name, file(name)).unwrap();
    }
    assert_eq!(paths(&forward), paths(&backward));
    assert_eq!(paths(&forward), ["", "B", "a", "a/x", "a-", "b", "é"]);
}
