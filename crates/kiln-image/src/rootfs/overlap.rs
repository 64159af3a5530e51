//! Files that more than one package has.

use std::collections::HashMap;

use super::{RootfsError, fields};
use crate::deb::{Deb, Entry, EntryKind};
use crate::debian::relation::parse_relations;
use crate::tree::Tree;

/// Which package each file came from.
pub(super) struct Owners<'a> {
    names: Vec<&'a str>,
    /// Whom each package says that it replaces.
    replaces: Vec<Vec<String>>,
    by_path: HashMap<&'a [u8], usize>,
}

impl<'a> Owners<'a> {
    pub(super) fn new(packages: &'a [(String, Deb)]) -> Result<Self, RootfsError> {
        let mut replaces = Vec::new();
        for (name, deb) in packages {
            let field = fields(name, deb)?.remove("Replaces").unwrap_or_default();
            // A relation that can't be read replaces nobody.
            let relations = parse_relations(&field).unwrap_or_default();
            replaces.push(relations.into_iter().map(|relation| relation.name).collect());
        }
        let names = packages.iter().map(|(name, _)| name.as_str()).collect();
        Ok(Self { names, replaces, by_path: HashMap::new() })
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
        if first == package || same_link || says(package, first) || says(first, package) {
            return Ok(());
        }
        Err(RootfsError::Overlap {
            first: self.names[first].to_owned(),
            second: self.names[package].to_owned(),
            path: String::from_utf8_lossy(&entry.path).into_owned(),
        })
    }
}
