//! dpkg's books: what is installed, by which scanners find vulnerable packages, and what else dpkg
//! and maintainer scripts look at.

use super::options::Options;
use super::package::Package;
use super::scripts::INFO_DIRECTORY;
use crate::tree::{Inode, Metadata, Tree, TreeError};

const DIRECTORY: &str = "var/lib/dpkg";

fn file(text: impl Into<Vec<u8>>) -> Inode {
    Inode::file(Metadata::new(0o644), text.into())
}

/// Writes the list of what is installed.
pub(super) fn status(tree: &mut Tree, stanzas: &[String]) -> Result<(), TreeError> {
    tree.make_directories(DIRECTORY, &Metadata::new(0o755))?;
    tree.replace(format!("{DIRECTORY}/status"), file(stanzas.concat())).map(drop)
}

/// What the list says of a package.
pub(super) fn stanza(package: &Package<'_>) -> String {
    let mut text = String::new();
    let mut lines = package.deb.control.trim_end().lines();
    if let Some(first) = lines.next() {
        text += first;
        text += "\nStatus: install ok installed\n";
    }
    for line in lines.filter(|line| !line.trim().is_empty()) {
        text += line;
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Writes the architectures that packages may be of, where there are others beside the first.
pub(super) fn architectures(
    tree: &mut Tree,
    packages: &[Package<'_>],
    options: &Options,
) -> Result<(), TreeError> {
    let mut foreign: Vec<&str> = packages.iter().map(|p| p.architecture.as_str()).collect();
    foreign
        .retain(|architecture| !["all", options.architecture.as_str(), ""].contains(architecture));
    foreign.sort_unstable();
    foreign.dedup();
    if foreign.is_empty() {
        return Ok(());
    }
    foreign.insert(0, &options.architecture);
    tree.replace(format!("{DIRECTORY}/arch"), file(foreign.join("\n") + "\n")).map(drop)
}

/// Writes what dpkg keeps of each package: its files, their sums, its scripts.
pub(super) fn info(tree: &mut Tree, packages: &[Package<'_>]) -> Result<(), TreeError> {
    for directory in [INFO_DIRECTORY, "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        tree.make_directories(directory, &Metadata::new(0o755))?;
    }
    tree.replace(format!("{INFO_DIRECTORY}/format"), file("1\n"))?;
    for name in ["available", "statoverride", "diversions"] {
        if tree.get(format!("{DIRECTORY}/{name}")).is_none() {
            tree.insert(format!("{DIRECTORY}/{name}"), file(""))?;
        }
    }
    for package in packages {
        let book = package.book_name();
        let mut list = b"/.\n".to_vec();
        for entry in package.deb.entries.iter().filter(|entry| !entry.path.is_empty()) {
            list.push(b'/');
            list.extend(&entry.path);
            list.push(b'\n');
        }
        tree.replace(format!("{INFO_DIRECTORY}/{book}.list"), file(list))?;
        for (name, bytes) in &package.deb.control_files {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            if !plain || name.is_empty() {
                continue;
            }
            let script = ["preinst", "postinst", "prerm", "postrm", "config"].contains(&&**name);
            let mode = if script { 0o755 } else { 0o644 };
            let inode = Inode::file(Metadata::new(mode), bytes.clone());
            tree.replace(format!("{INFO_DIRECTORY}/{book}.{name}"), inode)?;
        }
    }
    Ok(())
}
