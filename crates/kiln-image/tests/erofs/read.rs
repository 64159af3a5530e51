//! What this crate reads back of an image is the tree that it was written from.

use std::path::Path;

use kiln_image::erofs::read::{EntryKind, Image};
use kiln_image::tree::{Kind, Tree};
use kiln_model::digest::Digest;

/// Asserts that `image` reads back as exactly `tree`.
pub(crate) fn compare_read(tree: &Tree, image: &Path) {
    let image = Image::open(image).unwrap();
    let entries = image.entries().unwrap();
    let visits: Vec<_> = tree.walk().collect();
    assert_eq!(entries.len(), visits.len(), "as many names");
    for (entry, visit) in entries.iter().zip(visits) {
        let shown = String::from_utf8_lossy(&entry.path);
        let metadata = visit.inode.metadata();
        assert_eq!(entry.path, visit.path);
        let found = (entry.mode, entry.uid, entry.gid, entry.mtime);
        let expected = (metadata.mode, metadata.uid, metadata.gid, metadata.mtime);
        assert_eq!(found, expected, "metadata of {shown}");
        assert_eq!(entry.xattrs, metadata.xattrs, "extended attributes of {shown}");
        match visit.inode.kind() {
            Kind::Directory(_) => assert_eq!(entry.kind, EntryKind::Directory, "{shown}"),
            Kind::Fifo => assert_eq!(entry.kind, EntryKind::Fifo, "{shown}"),
            Kind::Symlink(target) => {
                assert_eq!(entry.kind, EntryKind::Symlink(target.to_vec()), "{shown}");
            }
            Kind::File(content) => {
                assert_eq!(entry.kind, EntryKind::File, "{shown}");
                let content = content.read().unwrap();
                assert_eq!(entry.size, content.len() as u64, "length of {shown}");
                assert!(image.content(entry).unwrap() == content, "content of {shown}");
                assert_eq!(image.digest(entry).unwrap(), Digest::of(&content), "{shown}");
            }
        }
    }
}

#[test]
fn damage_is_an_error_or_read_within_bounds() {
    use kiln_image::erofs::{self, Options};
    use kiln_image::tree::{Inode, Metadata};

    let mut tree = Tree::new();
    tree.insert("d", Inode::directory(Metadata::new(0o755))).unwrap();
    for number in 0..50 {
        let metadata = Metadata::new(0o644).with_xattr("user.a", "b");
        tree.insert(format!("d/{number}"), Inode::file(metadata, vec![7_u8; 5000])).unwrap();
    }
    let mut good = Vec::new();
    let _ = erofs::write(&tree, Options::default(), &mut good).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("image");
    for seed in 0..2000_usize {
        let mut bytes = good.clone();
        let at = 1024 + (seed * 7919) % 12_000;
        bytes[at] ^= u8::try_from(seed % 255).unwrap() + 1;
        bytes.truncate(if seed % 5 == 0 { 9000 } else { bytes.len() });
        std::fs::write(&path, bytes).unwrap();
        // It must come to an end without a panic; what it says of damage is of no account.
        let Ok(image) = Image::open(&path) else { continue };
        let Ok(entries) = image.entries() else { continue };
        for entry in entries {
            let _ = (image.content(&entry), image.digest(&entry));
        }
    }
}
