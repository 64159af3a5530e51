//! The frame of a root filesystem: merged `/usr`, mount points, and what is left out.

use kiln_model::spec::image::Keep;

use super::options::Options;
use crate::tree::{Inode, Metadata, Tree, TreeError};

/// Directories that stand in `/usr` while `/` has a link to them, where a package uses them.
pub(super) const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];
/// Those of them that each system has.
const MERGED_ALWAYS: usize = 3;

/// Directories with documentation and translations, which no program needs to run, and what keeps
/// them.
const LEFT_OUT: [(&str, Option<Keep>); 12] = [
    ("usr/share/bug", None),
    ("usr/share/calendar", None),
    ("usr/share/linda", None),
    ("usr/share/lintian", None),
    ("usr/share/menu", None),
    ("usr/share/doc-base", Some(Keep::Docs)),
    ("usr/share/gtk-doc", Some(Keep::Docs)),
    ("usr/share/info", Some(Keep::Docs)),
    ("usr/share/locale", Some(Keep::Locales)),
    ("usr/share/groff", Some(Keep::Man)),
    ("usr/share/man", Some(Keep::Man)),
    ("var/cache/man", Some(Keep::Man)),
];

/// Whether a file belongs into an image. Of the documentation the licences stay in any.
pub(super) fn is_wanted(path: &[u8], options: &Options) -> bool {
    let below = |directory: &str| {
        path.strip_prefix(directory.as_bytes())
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    if below("usr/share/doc") {
        // `usr/share/doc/PACKAGE` may be a link to another package's, and is kept as such.
        return options.keeps(Keep::Docs)
            || path.ends_with(b"/copyright")
            || path.split(|c| *c == b'/').count() <= 4;
    }
    let kept = |keep: &Option<Keep>| keep.is_some_and(|keep| options.keeps(keep));
    !LEFT_OUT.iter().any(|(directory, keep)| below(directory) && !kept(keep))
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
    use super::*;

    #[test]
    fn licences_stay_and_manuals_go_unless_kept() {
        let options = |keep: &[Keep]| Options {
            architecture: "amd64".to_owned(),
            keep: keep.iter().copied().collect(),
            scripts: kiln_model::spec::image::Scripts::Skip,
            tools: std::collections::BTreeSet::new(),
        };
        for path in
            ["usr/share/doc/a/copyright", "usr/share/doc/a", "usr/share/manifold/x", "usr/bin/man"]
        {
            assert!(is_wanted(path.as_bytes(), &options(&[])), "{path}");
        }
        for (path, keep) in [
            ("usr/share/doc/a/changelog.gz", Keep::Docs),
            ("usr/share/man/man1/a.1.gz", Keep::Man),
            ("usr/share/locale", Keep::Locales),
        ] {
            assert!(!is_wanted(path.as_bytes(), &options(&[])), "{path}");
            assert!(is_wanted(path.as_bytes(), &options(&[keep])), "{path}");
        }
    }
}
