//! Random trees: written, mounted, walked and compared; and equal trees give equal bytes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kiln_image::erofs::Options;
use kiln_image::tree::{Content, Inode, Metadata, Tree};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::mounted::{image, verify};

/// One entry to be, in a directory that is chosen among those that there are by then.
#[derive(Debug, Clone)]
struct Plan {
    under: usize,
    name: Vec<u8>,
    metadata: Metadata,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Directory,
    File { offset: u64, length: u64 },
    Symlink(Vec<u8>),
    Fifo,
    Link(usize),
}

const SPOOL: usize = 60_000;

fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if matches!(byte, 0 | b'/') { b'+' } else { byte });
    let usable = |name: &Vec<u8>| name.as_slice() != b"." && name.as_slice() != b"..";
    prop_oneof![
        6 => "[a-z.+-]{1,6}".prop_map(String::into_bytes),
        2 => vec(byte, 1..=255),
        1 => Just(vec![b'w'; 255]),
    ]
    .prop_filter("dots are there already", usable)
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let owner = prop_oneof![3 => 0..1000_u32, 1 => any::<u32>().prop_map(|id| id & 0x7FFF_FFFF)];
    let mtime = prop_oneof![2 => Just(1_000_000_i64), 1 => -2_000_000_000..9_000_000_000_i64];
    let xattrs = btree_map("(user|trusted)\\.[a-z]{1,9}", vec(any::<u8>(), 0..300), 0..3);
    (0..0o10_000_u16, owner.clone(), owner, mtime, xattrs).prop_map(
        |(mode, uid, gid, mtime, xattrs)| {
            let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value));
            Metadata { mode, uid, gid, mtime, xattrs: xattrs.collect() }
        },
    )
}

fn whats() -> impl Strategy<Value = What> {
    let length = prop_oneof![
        4 => 0..5000_u64,
        2 => (0..4_u64, 0..130_u64).prop_map(|(blocks, less)| blocks * 4096 + 4096 - less),
        1 => 0..50_000_u64,
    ];
    prop_oneof![
        4 => Just(What::Directory),
        6 => (0..9000_u64, length).prop_map(|(offset, length)| What::File { offset, length }),
        2 => vec(1..=255_u8, 1..=4095).prop_map(What::Symlink),
        1 => "[a-z/.]{1,30}".prop_map(|target| What::Symlink(target.into_bytes())),
        1 => Just(What::Fifo),
        2 => any::<usize>().prop_map(What::Link),
    ]
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (any::<usize>(), names(), metadata(), whats())
        .prop_map(|(under, name, metadata, what)| Plan { under, name, metadata, what });
    vec(plan, 0..120)
}

/// Builds the planned tree; contents stay in the file `spool`, or come into memory without one.
fn build(plans: &[Plan], spool: &[u8], stored: Option<&Path>) -> Tree {
    let mut tree = Tree::new();
    let (mut directories, mut files) = (vec![Vec::new()], Vec::<Vec<u8>>::new());
    for Plan { under, name, metadata, what } in plans {
        let mut path = directories[under % directories.len()].clone();
        path.push(b'/');
        path.extend(name);
        if path.len() > 3000 || tree.get(&path).is_some() {
            continue;
        }
        let metadata = metadata.clone();
        let inode = match what {
            What::Directory => {
                directories.push(path.clone());
                Inode::directory(metadata)
            }
            What::File { offset, length } => {
                files.push(path.clone());
                Inode::file(metadata, content(*offset, *length, spool, stored))
            }
            What::Symlink(target) => Inode::symlink(trusted_only(metadata), target),
            What::Fifo => Inode::fifo(trusted_only(metadata)),
            What::Link(number) => {
                if let Some(existing) = files.get(number % files.len().max(1)) {
                    tree.link(existing, &path).unwrap();
                }
                continue;
            }
        };
        tree.insert(&path, inode).unwrap();
    }
    tree
}

/// The kernel shows `user.` attributes of files and directories only, see xattr(7).
fn trusted_only(mut metadata: Metadata) -> Metadata {
    metadata.xattrs.retain(|name, _| name.starts_with(b"trusted."));
    metadata
}

fn content(offset: u64, length: u64, spool: &[u8], stored: Option<&Path>) -> Content {
    if let Some(path) = stored {
        return Content::Stored { path: Arc::from(path), offset, length };
    }
    let at = usize::try_from(offset).unwrap();
    Content::from(&spool[at..at + usize::try_from(length).unwrap()])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_trees_come_back_as_they_were(plans in plans(), mut seed: u64) {
        let scratch = tempfile::tempdir().unwrap();
        let spool: Vec<u8> = (0..SPOOL).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        }).collect();
        let stored = scratch.path().join("spool");
        fs::write(&stored, &spool).unwrap();
        let options = Options { build_time: 1_000_000 };

        let tree = build(&plans, &spool, Some(&stored));
        let one = image(&tree, options, scratch.path(), "one");
        verify("random_trees_come_back_as_they_were", &tree, &one);

        // The same tree from memory and by way of a merge, so in the order of a walk.
        let mut merged = Tree::new();
        merged.merge(&build(&plans, &spool, None)).unwrap();
        let two = image(&merged, options, scratch.path(), "two");
        prop_assert!(fs::read(one).unwrap() == fs::read(two).unwrap());
    }
}
