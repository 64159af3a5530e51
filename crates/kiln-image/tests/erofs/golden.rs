//! One small image, pinned byte for byte: a change of the writer changes every image's digest.

use kiln_image::erofs::{self, Options};
use kiln_image::tree::{Inode, Metadata, Tree};
use sha2::{Digest, Sha256};

const GOLDEN: &str = "c55425720be297ddd12e0fbb0a2e66c73572b88ba2d20c1e1eed320ccd5d2165";

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.make_directories("usr/bin", &Metadata::new(0o755)).unwrap();
    tree.insert("bin", Inode::symlink(Metadata::new(0o777), "usr/bin")).unwrap();
    let tool = Metadata::new(0o4755).owned_by(0, 42).with_xattr("user.origin", "kiln");
    tree.insert("bin/tool", Inode::file(tool, [0x7F; 5000])).unwrap();
    tree.link("bin/tool", "bin/-tool").unwrap();
    let late = Metadata::new(0o600).modified_at(1_700_000_000).owned_by(100_000, 0);
    tree.insert("late", Inode::file(late, b"late\n".as_slice())).unwrap();
    tree.insert("pipe", Inode::fifo(Metadata::new(0o600))).unwrap();
    tree
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn a_small_tree_has_the_pinned_digest() {
    let mut out = Vec::new();
    let summary = erofs::write(&tree(), Options { build_time: 0 }, &mut out).unwrap();
    assert_eq!((summary.length, summary.inodes), (8192, 7));
    assert_eq!(hex(&Sha256::digest(&out)), GOLDEN);
    crate::cases::check("a_small_tree_has_the_pinned_digest", &tree());
}
