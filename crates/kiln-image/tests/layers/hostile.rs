//! Layers that try to do harm.

use kiln_image::oci::layer::LayerError;
use kiln_image::tree::Tree;
use tar::EntryType;

use crate::foreign::tar;
use crate::{archive, file, lay};

fn laid(bytes: &[u8]) -> Result<Tree, LayerError> {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let mut tree = Tree::new();
    let result = lay(&mut tree, bytes, &inside);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing written outside");
    result.map(|_| tree)
}

#[test]
fn what_has_no_place_in_an_image_is_refused_by_name() {
    for (path, kind, link, what) in [
        ("../../etc/passwd", EntryType::Regular, "", "the path of \"../../etc/passwd\""),
        ("/etc/passwd", EntryType::Regular, "", "the path"),
        ("a/../../b", EntryType::Directory, "", "the path"),
        ("link", EntryType::Link, "../../etc/shadow", "the link of \"link\""),
        ("link", EntryType::Link, "/etc/shadow", "the link"),
        ("sda", EntryType::Block, "", "the device of \"sda\""),
        ("lib/console", EntryType::Char, "", "the device"),
        ("what", EntryType::new(b'Q'), "", "the special file"),
    ] {
        let error = laid(&tar(&[(path, kind, link)])).unwrap_err().to_string();
        assert!(error.contains("the layer") && error.contains(what), "{error}");
    }
}

#[test]
fn links_lead_nowhere_outside() {
    // Through a link that climbs out, a file stays inside the tree.
    let entries = [
        ("out", EntryType::Symlink, "../../../../tmp"),
        ("tmp", EntryType::Directory, ""),
        ("out/evil", EntryType::Regular, ""),
    ];
    let tree = laid(&tar(&entries)).unwrap();
    assert!(tree.get("tmp/evil").is_some());
    let circle = [("a", EntryType::Symlink, "b"), ("b", EntryType::Symlink, "a")];
    let through = [circle[0], circle[1], ("a/x", EntryType::Regular, "")];
    assert!(matches!(laid(&tar(&through)), Err(LayerError::Place { .. })));
    let missing = laid(&tar(&[("link", EntryType::Link, "not/there")]));
    assert!(matches!(missing, Err(LayerError::Place { .. })));
}

#[test]
fn devices_of_an_instance_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let bytes = tar(&[("dev", EntryType::Directory, ""), ("dev/null", EntryType::Char, "")]);
    assert_eq!(lay(&mut tree, &bytes, directory.path()).unwrap().devices, 1);
    assert!(tree.get("dev").is_some() && tree.get("dev/null").is_none());
}

#[test]
fn a_cut_layer_is_damaged_and_no_flipped_bit_makes_it_panic() {
    let mut tree = Tree::new();
    tree.insert("file", file(0o755, &[7; 1000])).unwrap();
    tree.insert("z".repeat(150), file(0o644, b"")).unwrap();
    let whole = archive(None, &tree);
    for length in [100, 511, 513, 1200] {
        let cut = laid(&whole[..length]);
        assert!(matches!(cut, Err(LayerError::Damaged { .. })), "{length}: {cut:?}");
    }
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        // Either reading is right; what matters is that it comes back.
        let _ = laid(&flipped);
    }
}

#[test]
fn lengths_that_are_claimed_take_no_memory() {
    // A pax header and a name that claim gigabytes.
    for kind in [EntryType::XHeader, EntryType::GNULongName] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(8 << 30);
        header.set_cksum();
        let bytes = [&header.as_bytes()[..], &[0; 2048]].concat();
        assert!(matches!(laid(&bytes), Err(LayerError::Damaged { .. })));
    }
}
