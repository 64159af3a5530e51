//! Random trees come back from their layers as they were.

use kiln_image::tree::{Inode, Metadata, Tree};
use proptest::prelude::*;

use crate::{archive, file, lay, shown};

/// One change of a tree; what does not fit is left out.
#[derive(Clone, Debug)]
enum Edit {
    Directory(String, Metadata),
    File(String, Metadata, Vec<u8>),
    Symlink(String, String),
    Fifo(String, Metadata),
    Link(String, String),
    Remove(String),
    Metadata(String, Metadata),
    Root(Metadata),
}

/// Few names, so that changes meet; one that is longer than a plain header has room for.
fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        6 => "[a-c]".prop_map(String::from),
        1 => Just("\u{fc}n\u{ef}code name".to_owned()),
        1 => "[xy]{101}".prop_map(String::from),
    ];
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let id = || prop_oneof![Just(0), 0..3000_u32, Just(2_097_152), any::<u32>()];
    let mtime = prop_oneof![Just(0), 0..2_000_000_000_i64, Just(-5), Just(1 << 40)];
    let xattr = prop::option::of(("[a-z.]{1,9}", prop::collection::vec(any::<u8>(), 0..200)));
    (0..0o10000_u16, id(), id(), mtime, xattr).prop_map(|(mode, uid, gid, mtime, xattr)| {
        let metadata = Metadata::new(mode).owned_by(uid, gid).modified_at(mtime);
        match xattr {
            Some((name, value)) => metadata.with_xattr(format!("user.{name}"), value),
            None => metadata,
        }
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let content = prop::collection::vec(any::<u8>(), 0..1500);
    prop_oneof![
        4 => (path(), metadata()).prop_map(|(path, m)| Edit::Directory(path, m)),
        4 => (path(), metadata(), content).prop_map(|(path, m, bytes)| Edit::File(path, m, bytes)),
        2 => (path(), path()).prop_map(|(path, target)| Edit::Symlink(path, target)),
        1 => (path(), metadata()).prop_map(|(path, m)| Edit::Fifo(path, m)),
        2 => (path(), path()).prop_map(|(path, other)| Edit::Link(path, other)),
        3 => path().prop_map(Edit::Remove),
        2 => (path(), metadata()).prop_map(|(path, m)| Edit::Metadata(path, m)),
        1 => metadata().prop_map(Edit::Root),
    ]
}

fn apply(tree: &mut Tree, edit: &Edit) {
    let plain = Metadata::new(0o755);
    let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
    // What does not fit is no part of the test.
    let mut put = |path: &str, inode: Inode| {
        let made = parent(path).map_or(Ok(()), |p| tree.make_directories(p, &plain).map(drop));
        let _ = made.and_then(|()| tree.replace(path, inode).map(drop));
    };
    match edit {
        Edit::Directory(path, metadata) => put(path, Inode::directory(metadata.clone())),
        Edit::File(path, metadata, bytes) => {
            put(path, Inode::file(metadata.clone(), bytes.clone()));
        }
        Edit::Symlink(path, target) => put(path, Inode::symlink(plain.clone(), target)),
        Edit::Fifo(path, metadata) => put(path, Inode::fifo(metadata.clone())),
        Edit::Link(path, other) => drop(tree.link(path, other)),
        Edit::Remove(path) => drop(tree.remove(path)),
        Edit::Metadata(path, metadata) => drop(tree.set_metadata(path, metadata.clone())),
        Edit::Root(metadata) => drop(tree.set_metadata("/", metadata.clone())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn layers_make_the_very_tree_again(
        first in prop::collection::vec(edit(), 0..25),
        second in prop::collection::vec(edit(), 0..25),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut lower = Tree::new();
        for edit in &first {
            apply(&mut lower, edit);
        }
        let below = archive(None, &lower);
        prop_assert_eq!(&below, &archive(None, &lower.clone()));
        let mut back = Tree::new();
        lay(&mut back, &below, directory.path()).unwrap();
        prop_assert_eq!(shown(&back), shown(&lower));

        // What changes is compared by content, wherever that stands.
        let mut upper = lower.clone();
        for edit in &second {
            apply(&mut upper, edit);
        }
        let above = archive(Some(&back), &upper);
        prop_assert_eq!(&above, &archive(Some(&lower), &upper));
        lay(&mut back, &above, directory.path()).unwrap();
        prop_assert_eq!(shown(&back), shown(&upper));
        prop_assert_eq!(archive(Some(&back), &upper).len(), 1024, "nothing is left to change");
    }
}

#[test]
fn names_that_mean_removals_are_refused() {
    let mut tree = Tree::new();
    tree.insert(".wh.a", file(0o644, b"")).unwrap();
    let changes = kiln_image::oci::layer::everything(&tree);
    let refused = kiln_image::oci::layer::write(&tree, &changes, &mut Vec::new());
    assert!(refused.unwrap_err().to_string().contains(".wh."));
}
