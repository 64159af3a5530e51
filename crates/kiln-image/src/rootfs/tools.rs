//! What is in a tree only while maintainer scripts run.

use std::collections::BTreeSet;

use kiln_model::spec::image::Keep;

use super::books;
use super::options::Options;
use super::package::Package;
use crate::deb::EntryKind;
use crate::tree::{Inode, Kind, Metadata, Tree, TreeError};

/// What debconf and the tools of dpkg write while scripts run, which differs from run to run.
const TRACES: [&str; 8] = [
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/log/alternatives.log",
    "var/log/dpkg.log",
    "var/log/apt",
];
/// Files that scripts leave beside those that they replace.
const OLD_FILES: [&str; 6] = [
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/statoverride-old",
];
/// dpkg's books beside the list of what is installed.
const BOOKS: [&str; 6] = ["info", "updates", "triggers", "alternatives", "available", "diversions"];

/// What has to go when the scripts have run.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// Whether scripts are run at all.
    run: bool,
    keep_books: bool,
    /// Files of packages that only scripts need, deepest first.
    files: Vec<Vec<u8>>,
    /// Directories that such packages alone have, deepest first.
    directories: Vec<Vec<u8>>,
    /// What dpkg's list says of the packages that stay.
    stanzas: Vec<String>,
}

impl Tools {
    pub(super) fn of(packages: &[Package<'_>], options: &Options) -> Self {
        let is_tool = |package: &&Package<'_>| {
            options.tools.contains(&(package.name.to_owned(), package.architecture.clone()))
        };
        let stay = || packages.iter().filter(|package| !is_tool(package));
        let kept: BTreeSet<&[u8]> = stay()
            .flat_map(|package| &package.deb.entries)
            .map(|entry| entry.path.as_slice())
            .collect();
        let mut tools = Self {
            run: options.runs_scripts(),
            keep_books: options.keeps(Keep::Dpkg),
            stanzas: stay().map(books::stanza).collect(),
            ..Self::default()
        };
        for entry in packages.iter().filter(is_tool).flat_map(|package| &package.deb.entries) {
            if kept.contains(entry.path.as_slice()) || entry.path.is_empty() {
                continue;
            }
            match entry.kind {
                EntryKind::Directory => tools.directories.push(entry.path.clone()),
                _ => tools.files.push(entry.path.clone()),
            }
        }
        tools.directories.sort_by(|a, b| b.cmp(a));
        tools.directories.dedup();
        tools
    }

    /// Makes what dpkg's tools expect to be there.
    pub(super) fn prepare(&self, tree: &mut Tree) -> Result<(), TreeError> {
        if self.run {
            tree.make_directories("var/cache/debconf", &Metadata::new(0o755))?;
            tree.make_directories("var/log", &Metadata::new(0o755))?;
        }
        Ok(())
    }

    /// Takes it away.
    pub(super) fn clear(&self, tree: &mut Tree) -> Result<(), TreeError> {
        if !self.run {
            return Ok(());
        }
        for path in &self.files {
            remove(tree, path)?;
        }
        for path in TRACES.iter().chain(&OLD_FILES) {
            remove(tree, path.as_bytes())?;
        }
        if !self.keep_books {
            for book in BOOKS {
                remove(tree, format!("var/lib/dpkg/{book}").as_bytes())?;
            }
        }
        for path in &self.directories {
            let empty = match tree.get(path).map(Inode::kind) {
                Some(Kind::Directory(children)) => children.is_empty(),
                _ => false,
            };
            if empty {
                tree.remove(path)?;
            }
        }
        books::status(tree, &self.stanzas)
    }
}

/// Removes what is at a path; nothing there is fine.
fn remove(tree: &mut Tree, path: &[u8]) -> Result<(), TreeError> {
    if tree.get(path).is_some() { tree.remove(path) } else { Ok(()) }
}
