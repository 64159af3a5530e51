//! Layers and archives as other programs write them.

use std::process::Command;

use kiln_image::oci::layer;
use kiln_image::tree::{Metadata, Tree};
use tar::{Builder, EntryType, Header};

use crate::{file, lay, shown};

/// An archive with these entries: path, kind, link.
pub(crate) fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, link) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn base() -> Tree {
    let mut tree = Tree::new();
    for directory in ["a/b", "d"] {
        tree.make_directories(directory, &Metadata::new(0o755)).unwrap();
    }
    for path in ["a/one", "a/two", "a/b/three", "d/four"] {
        tree.insert(path, file(0o644, path.as_bytes())).unwrap();
    }
    tree.insert("link", kiln_image::tree::Inode::symlink(Metadata::new(0o777), "d")).unwrap();
    tree
}

fn paths(tree: &Tree) -> Vec<String> {
    let path = |visit: kiln_image::tree::Visit<'_>| String::from_utf8(visit.path).unwrap();
    tree.walk().skip(1).map(path).collect()
}

fn after(entries: &[(&str, EntryType, &str)]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let mut tree = base();
    lay(&mut tree, &tar(entries), directory.path()).unwrap();
    paths(&tree)
}

#[test]
fn whiteouts_take_away_what_is_below_and_nothing_else() {
    use EntryType::{Directory, Regular};
    let all = ["a", "a/b", "a/b/three", "a/one", "a/two", "d", "d/four", "link"];
    let without = |gone: &[&str]| -> Vec<String> {
        all.iter().filter(|path| !gone.contains(path)).map(ToString::to_string).collect()
    };
    assert_eq!(after(&[("a/.wh.one", Regular, "")]), without(&["a/one"]));
    assert_eq!(
        after(&[(".wh.a", Regular, "")]),
        without(&["a", "a/b", "a/b/three", "a/one", "a/two"])
    );
    // What the layer brings stays, whichever comes first.
    for order in [[0, 1], [1, 0]] {
        let both = [("a/.wh.one", Regular, ""), ("a/one", Regular, "")];
        assert_eq!(after(&[both[order[0]], both[order[1]]]), without(&[]));
        let both = [("a/.wh..wh..opq", Regular, ""), ("a/new", Regular, "")];
        let mut left = without(&["a/b", "a/b/three", "a/one", "a/two"]);
        left.insert(1, "a/new".into());
        assert_eq!(after(&[both[order[0]], both[order[1]]]), left);
    }
    // A link is not followed to what is to be removed; notes of other programs mean nothing.
    assert_eq!(after(&[("link/.wh.four", Regular, "")]), without(&[]));
    assert_eq!(after(&[(".wh..wh.plnk", Regular, ""), (".wh.none", Regular, "")]), without(&[]));
    // Kinds replace one another.
    let replaced = after(&[("link", Directory, ""), ("link/x", Regular, ""), ("a", Regular, "")]);
    assert_eq!(replaced, ["a", "d", "d/four", "link", "link/x"]);
}

/// What GNU tar and bsdtar-like headers hold: long names, sparse files, extended attributes, links.
#[test]
fn archives_of_gnu_tar_are_read_in_each_format() {
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("from");
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    std::fs::create_dir_all(from.join("d".repeat(120))).unwrap();
    std::fs::write(from.join(&long), "long").unwrap();
    std::fs::hard_link(from.join(&long), from.join("second")).unwrap();
    std::os::unix::fs::symlink("x".repeat(150), from.join("symlink")).unwrap();
    let sparse = std::fs::File::create(from.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    sparse.set_len(3 << 20).unwrap();
    drop(sparse);
    let mut trees = Vec::new();
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse"],
        &["--format=pax", "--xz"],
    ] {
        let packed = Command::new("tar")
            .args(["--create", "--file=-", "--sort=name", "--mtime=@-5", "--directory"])
            .arg(&from)
            .args(options)
            .arg(".")
            .output()
            .unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let spool = directory.path().join(format!("{}.tar", trees.len()));
        layer::unpack("it", &packed.stdout[..], packed.stdout.len() as u64, &spool).unwrap();
        let mut tree = Tree::new();
        layer::apply_rootfs(&mut tree, &spool, "it").unwrap();
        let sparse = tree.get("sparse").unwrap().content().unwrap().read().unwrap();
        assert_eq!((sparse.len(), &sparse[1 << 20..(1 << 20) + 6]), (3 << 20, &b"middle"[..]));
        assert_eq!(tree.get("second").unwrap().metadata().mtime, -5);
        trees.push(shown(&tree));
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]));
    assert!(trees[0].iter().any(|line| line.starts_with(&format!("second = {long}: file"))));
}
