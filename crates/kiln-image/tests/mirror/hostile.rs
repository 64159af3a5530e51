//! Packages that try to do harm.

use kiln_image::deb::{Deb, DebError, EntryKind};
use tar::{EntryType, Header};

use crate::archive::deb;

const CONTROL: &str = "Package: x\nVersion: 1\nArchitecture: all\n";

/// A package with one entry, whose path is written as it is, without the library's checks.
fn package(path: &str, kind: EntryType, link: &str, mode: u32) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    let mut data = tar::Builder::new(Vec::new());
    data.append(&header, &[][..]).expect("memory takes all");
    deb(CONTROL, &data.into_inner().expect("memory takes all"))
}

fn read(bytes: &[u8]) -> Result<Deb, DebError> {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let path = directory.path().join("x.deb");
    std::fs::write(&path, bytes).expect("the directory can be written");
    let read = Deb::read(&path, &directory.path().join("spool"));
    let names = std::fs::read_dir(directory.path()).expect("the directory is there").count();
    assert!(names <= 2, "only the package and its spool stand there");
    read
}

#[test]
fn what_has_no_place_in_an_image_is_refused() {
    for (path, kind, link) in [
        ("../../etc/passwd", EntryType::Regular, ""),
        ("/etc/passwd", EntryType::Regular, ""),
        ("./a/../../b", EntryType::Directory, ""),
        ("./link", EntryType::Link, "../../etc/shadow"),
        ("./link", EntryType::Link, "/etc/shadow"),
        ("./disk", EntryType::Block, ""),
        ("./console", EntryType::Char, ""),
        ("./a/link", EntryType::Symlink, "../../etc/shadow"),
        ("./link", EntryType::Symlink, ".."),
    ] {
        let refused = read(&package(path, kind, link, 0o644));
        assert!(matches!(refused, Err(DebError::Forbidden { .. })), "{path} {refused:?}");
    }
}

#[test]
fn set_id_bits_of_programs_are_taken_away() {
    let read = read(&package("./bin/su", EntryType::Regular, "", 0o6755)).unwrap();
    assert_eq!(read.entries[0].metadata.mode, 0o755);
    assert!(matches!(read.entries[0].kind, EntryKind::File(_)));
}

#[test]
fn a_bomb_is_refused_at_its_bound() {
    // 70 MiB, a few kB packed: of description, of files.
    let control = format!("{CONTROL}Description: {}\n", " ".repeat(70 << 20));
    for bomb in [deb(&control, &[0; 1024]), deb(CONTROL, &vec![0; 70 << 20])] {
        let refused = read(&bomb);
        assert!(matches!(refused, Err(DebError::TooLarge { .. })), "{refused:?}");
    }
}

#[test]
fn what_is_no_package_is_refused() {
    let whole = package("./a", EntryType::Regular, "", 0o644);
    for length in [0, 4, 8, 30, 68, 90, whole.len() / 2] {
        assert!(read(&whole[..length]).is_err(), "cut after {length} bytes");
    }
    assert!(read(&deb("", &[0; 1024])).is_ok_and(|deb| deb.control.is_empty()));
    let mut other = whole.clone();
    other[8..21].copy_from_slice(b"debian-binarx");
    assert!(matches!(read(&other), Err(DebError::Form { .. })));
}

#[test]
fn links_inside_the_image_are_taken() {
    for target in ["/etc/alternatives/x", "../lib/x", "x"] {
        let read = read(&package("./bin/link", EntryType::Symlink, target, 0o777)).unwrap();
        assert!(
            matches!(&read.entries[0].kind, EntryKind::Symlink(to) if *to == target.as_bytes())
        );
    }
}

#[test]
fn long_names_beyond_a_bound_are_refused() {
    // A header of an extension that says that 2 MiB of a name follow.
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(2 << 20);
        header.set_cksum();
        let mut data = header.as_bytes().to_vec();
        data.resize(512 + (2 << 20), b'a');
        let refused = read(&deb(CONTROL, &data));
        assert!(matches!(refused, Err(DebError::Forbidden { .. })), "{kind:?} {refused:?}");
    }
}

#[test]
fn files_that_are_cut_short_are_refused() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.as_old_mut().name[..1].copy_from_slice(b"a");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(4096);
    header.set_cksum();
    let mut data = header.as_bytes().to_vec();
    data.resize(512 + 1024, b'a');
    let refused = read(&deb(CONTROL, &data));
    assert!(matches!(refused, Err(DebError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_compression_that_is_not_known_is_named() {
    let mut bytes = package("./a", EntryType::Regular, "", 0o644);
    let at = bytes.windows(11).position(|window| window == b"data.tar.xz").unwrap();
    bytes[at..at + 12].copy_from_slice(b"data.tar.bz2");
    let refused = read(&bytes).unwrap_err().to_string();
    assert!(refused.contains("data.tar.bz2 is compressed in a way"), "{refused}");
}

#[test]
fn no_flipped_bit_makes_it_panic() {
    let whole = package("./a", EntryType::Regular, "", 0o644);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        // Either reading is right; what matters is that it comes back.
        let _ = read(&flipped);
    }
}
