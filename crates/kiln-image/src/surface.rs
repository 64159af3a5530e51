//! What an attacker would be glad to find in an image: shells, package managers, debuggers,
//! set-id programs.

use std::path::Path;

use crate::erofs::read::{EntryKind, Image, ReadError};

/// Programs, by name, that let whoever gets in go on from there.
const PROGRAMS: [(&str, &[&str]); 3] = [
    (
        "a shell",
        &["ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"],
    ),
    (
        "a package manager",
        &[
            "apk", "apt", "apt-get", "aptitude", "dnf", "dpkg", "gem", "microdnf", "npm", "pip",
            "pip3", "rpm", "yum", "zypper",
        ],
    ),
    ("a debugger", &["gdb", "gdbserver", "ltrace", "strace"]),
];
/// Where programs are.
const DIRECTORIES: [&str; 6] =
    ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"];

/// Set-user-id or set-group-id.
const SET_ID: u16 = 0o6000;

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it is, such as `a shell`.
    pub what: &'static str,
    /// Where.
    pub path: String,
}

/// All such things in the filesystem of an image, in order. Links that lead to a program elsewhere
/// are not told of beside it.
pub fn findings(filesystem: &Path) -> Result<Vec<Finding>, ReadError> {
    let mut found = Vec::new();
    for entry in Image::open(filesystem)?.entries()? {
        if entry.kind != EntryKind::File {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if DIRECTORIES.contains(&directory) && entry.mode & 0o111 != 0 {
            let kinds = PROGRAMS.iter().filter(|(_, names)| names.contains(&name));
            found.extend(kinds.map(|(what, _)| Finding { what, path: format!("/{path}") }));
        }
        if entry.mode & SET_ID != 0 {
            found.push(Finding { what: "a set-id program", path: format!("/{path}") });
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erofs::{Options, write};
    use crate::tree::{Inode, Metadata, Tree};

    #[test]
    fn programs_are_found_by_name_and_place() {
        let mut tree = Tree::new();
        for (path, mode) in [
            ("usr/bin/dash", 0o755),
            ("usr/bin/apt", 0o755),
            ("usr/bin/bash", 0o644),
            ("srv/sh", 0o755),
            ("usr/bin/sh-like", 0o755),
        ] {
            let directory = path.rsplit_once('/').unwrap().0;
            tree.make_directories(directory, &Metadata::new(0o755)).unwrap();
            tree.insert(path, Inode::file(Metadata::new(mode), b"x".to_vec())).unwrap();
        }
        tree.insert("usr/bin/sh", Inode::symlink(Metadata::new(0o777), "dash")).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let _ = write(&tree, Options::default(), &mut file).unwrap();
        let found = findings(file.path()).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|f| (f.what, f.path.as_str())).collect();
        assert_eq!(found, [("a package manager", "/usr/bin/apt"), ("a shell", "/usr/bin/dash")]);
    }
}
