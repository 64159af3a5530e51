//! The frame of a root filesystem: merged `/usr`, mount points, and what is left out.

use crate::tree::{Inode, Metadata, Tree, TreeError};

/// Directories that stand in `/usr` while `/` has a link to them, where a package uses them.
const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];
/// Those of them that each system has.
const MERGED_ALWAYS: usize = 3;

/// Directories with documentation and translations, which no program needs to run.
const LEFT_OUT: [&str; 12] = [
    "usr/share/bug",
    "usr/share/doc-base",
    "usr/share/groff",
    "usr/share/info",
    "usr/share/linda",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/gtk-doc",
    "usr/share/calendar",
    "var/cache/man",
];

/// Whether a file belongs into an image. Of the documentation only the licences stay.
pub(super) fn is_wanted(path: &[u8]) -> bool {
    let below = |directory: &str| {
        path.strip_prefix(directory.as_bytes())
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    if below("usr/share/doc") {
        // `usr/share/doc/PACKAGE` may be a link to another package's, and is kept as such.
        return path.ends_with(b"/copyright") || path.split(|c| *c == b'/').count() <= 4;
    }
    !LEFT_OUT.iter().any(|directory| below(directory))
}

/// Makes the links from `/` into `/usr` that the maintainer script of `usrmerge` would make.
pub(super) fn merged_usr(tree: &mut Tree) -> Result<(), TreeError> {
    MERGED[..MERGED_ALWAYS].iter().try_for_each(|name| merge(tree, name))
}

/// Makes such a link before the first entry that needs it. The entry is below `/` or `/usr`.
pub(super) fn merge_top_level(tree: &mut Tree, path: &[u8]) -> Result<(), TreeError> {
    let top = path.split(|c| *c == b'/').next().unwrap_or_default();
    match MERGED.iter().find(|name| name.as_bytes() == top) {
        Some(name) if tree.get(name).is_none_or(Inode::is_directory) => merge(tree, name),
        _ => Ok(()),
    }
}

fn merge(tree: &mut Tree, name: &str) -> Result<(), TreeError> {
    let target = format!("usr/{name}");
    tree.make_directories(&target, &Metadata::new(0o755))?;
    if tree.get(name).is_some() {
        tree.remove(name)?;
    }
    tree.insert(name, Inode::symlink(Metadata::new(0o777), &target)).map(drop)
}

/// Makes what an instance mounts something on: directories, and the three files that name it and
/// its resolver.
pub(crate) fn mount_points(tree: &mut Tree) -> Result<(), TreeError> {
    for (path, mode) in [
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("var/tmp", 0o1777),
    ] {
        if tree.get(path).is_none() {
            tree.insert(path, Inode::directory(Metadata::new(mode)))?;
        }
    }
    for path in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        if tree.get(path).is_none() {
            tree.insert(path, Inode::file(Metadata::new(0o644), Vec::new()))?;
        }
    }
    Ok(())
}

/// What the maintainer script of `base-files` puts in place.
pub(super) fn base_files(tree: &mut Tree) -> Result<(), TreeError> {
    for (path, target) in [("var/run", "/run"), ("var/lock", "/run/lock")] {
        if tree.get(path).is_some() {
            tree.remove(path)?;
        }
        tree.insert(path, Inode::symlink(Metadata::new(0o777), target))?;
    }
    if tree.get("etc/dpkg/origins/debian").is_some()
        && tree.get("etc/dpkg/origins/default").is_none()
    {
        let link = Inode::symlink(Metadata::new(0o777), "debian");
        tree.insert("etc/dpkg/origins/default", link)?;
    }
    if tree.get("etc/nsswitch.conf").is_none() {
        let text = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
                    networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n";
        let file = Inode::file(Metadata::new(0o644), text.as_bytes().to_vec());
        tree.insert("etc/nsswitch.conf", file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn licences_stay_and_manuals_go() {
        for path in
            ["usr/share/doc/a/copyright", "usr/share/doc/a", "usr/share/manifold/x", "usr/bin/man"]
        {
            assert!(is_wanted(path.as_bytes()), "{path}");
        }
        for path in
            ["usr/share/doc/a/changelog.gz", "usr/share/man/man1/a.1.gz", "usr/share/locale"]
        {
            assert!(!is_wanted(path.as_bytes()), "{path}");
        }
    }
}
