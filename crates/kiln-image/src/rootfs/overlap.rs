//! Files that more than one package has.

use std::collections::HashMap;

use super::RootfsError;
use super::package::Package;
use crate::deb::{Entry, EntryKind};
use crate::tree::Tree;

/// Which package each file came from.
pub(super) struct Owners<'a> {
    names: Vec<&'a str>,
    /// Whom each package says that it replaces.
    replaces: Vec<Vec<String>>,
    by_path: HashMap<&'a [u8], usize>,
}

impl<'a> Owners<'a> {
    pub(super) fn new(packages: &'a [Package<'a>]) -> Self {
        let replaces = |package: &Package<'_>| {
            package.relations("replaces").into_iter().map(|relation| relation.name).collect()
        };
        Self {
            names: packages.iter().map(|package| package.name).collect(),
            replaces: packages.iter().map(replaces).collect(),
            by_path: HashMap::new(),
        }
    }

    /// Notes that a package brings a file. Another package's file of that name may only be
    /// replaced by one that says so, or by the same link.
    pub(super) fn claim(
        &mut self,
        tree: &Tree,
        package: usize,
        entry: &'a Entry,
    ) -> Result<(), RootfsError> {
        if matches!(entry.kind, EntryKind::Directory) {
            return Ok(());
        }
        let Some(first) = self.by_path.insert(&entry.path, package) else { return Ok(()) };
        let same_link = match (&entry.kind, tree.get(&entry.path).map(crate::tree::Inode::kind)) {
            (EntryKind::Symlink(new), Some(crate::tree::Kind::Symlink(old))) => **old == new[..],
            _ => false,
        };
        let says = |one: usize, other: usize| {
            self.replaces[one].iter().any(|name| name == self.names[other])
        };
        // The same package of another architecture has what both need once, with the same content.
        let same_package = self.names[first] == self.names[package];
        if same_package || same_link || says(package, first) || says(first, package) {
            return Ok(());
        }
        Err(RootfsError::Overlap {
            first: self.names[first].to_owned(),
            second: self.names[package].to_owned(),
            path: String::from_utf8_lossy(&entry.path).into_owned(),
        })
    }
}
