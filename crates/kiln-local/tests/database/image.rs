//! An image with the PostgreSQL that is installed on this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_image::erofs;
use kiln_image::tree::{Content, Inode, Metadata, Tree};
use kiln_model::spec::postgres;

pub(crate) const VERSION: u32 = 15;
/// The user's and group's number in the image.
pub(crate) const POSTGRES: u32 = 428;

const PROGRAMS: [&str; 9] = [
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_verifybackup",
    "pg_checksums",
    "pg_ctl",
    "psql",
    "pg_dump",
    "pg_dumpall",
];
const SHELL: &str = "/bin/sh";

/// Whether there is a PostgreSQL to make an image of.
pub(crate) fn is_possible() -> bool {
    PROGRAMS.iter().all(|name| Path::new(&postgres::program(VERSION, name)).exists())
}

/// Writes the image; `without` is left out of it.
pub(crate) fn write(to: &Path, without: &[&str]) {
    let mut tree = Tree::new();
    let plain = Metadata::new(0o755);
    for path in ["/proc", "/sys", "/dev", "/etc", "/run", "/tmp", "/bin", "/usr/bin"] {
        tree.make_directories(path, &plain).unwrap();
    }
    for path in [postgres::DATA, postgres::SOCKETS, postgres::CONFIGURATION] {
        if !without.contains(&path) {
            tree.make_directories(path, &plain).unwrap();
        }
    }
    let users = format!("root:x:0:0::/:\npostgres:x:{POSTGRES}:{POSTGRES}::/:\n");
    for (path, text) in [
        ("/etc/passwd", users),
        ("/etc/group", format!("postgres:x:{POSTGRES}:\n")),
        ("/etc/hosts", String::new()),
        ("/etc/hostname", String::new()),
        ("/etc/resolv.conf", String::new()),
    ] {
        tree.insert(path, Inode::file(Metadata::new(0o644), text.into_bytes())).unwrap();
    }
    let programs = PROGRAMS.map(|name| postgres::program(VERSION, name));
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for program in programs.iter().map(String::as_str).chain([SHELL]) {
        files.insert(program.into());
        files.extend(libraries(program));
    }
    for directory in [
        format!("/usr/lib/postgresql/{VERSION}/lib"),
        format!("/usr/share/postgresql/{VERSION}"),
        "/usr/lib/locale/C.utf8".to_owned(),
        "/usr/share/zoneinfo/Etc".to_owned(),
    ] {
        gather(Path::new(&directory), &mut files);
    }
    files.insert("/usr/share/zoneinfo/UTC".into());
    for path in files.iter().filter(|path| !without.contains(&path.to_str().unwrap())) {
        put(&mut tree, path);
    }
    let _ = erofs::write(&tree, erofs::Options::default(), &mut fs::File::create(to).unwrap());
}

/// What the dynamic linker needs to start a program.
fn libraries(program: &str) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

fn gather(directory: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            gather(&entry.path(), files);
        } else {
            files.insert(entry.path());
        }
    }
}

/// The file that a path leads to, under that path.
fn put(tree: &mut Tree, path: &Path) {
    let Ok(meta) = fs::metadata(path) else { return };
    let parent = path.parent().unwrap().to_str().unwrap();
    tree.make_directories(parent, &Metadata::new(0o755)).unwrap();
    let whole = path.canonicalize().unwrap();
    let content = Content::Stored { path: whole.into(), offset: 0, length: meta.len() };
    let mode = if path.to_string_lossy().contains("/share/") { 0o644 } else { 0o755 };
    tree.insert(path.to_str().unwrap(), Inode::file(Metadata::new(mode), content)).unwrap();
}
