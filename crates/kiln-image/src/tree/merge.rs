//! Laying one tree over another.

use std::collections::HashMap;

use super::{Inode, Tree, TreeError};

impl Tree {
    /// Lays `upper` over this tree, entry by entry, as [`Tree::replace`] does.
    ///
    /// Directories that both have are merged and take the upper one's metadata; a directory that
    /// meets a symlink to a directory goes where the symlink leads. Hard links stay hard links.
    /// An error leaves the entries before the refused one merged.
    pub fn merge(&mut self, upper: &Tree) -> Result<(), TreeError> {
        let mut merged = HashMap::new();
        for visit in upper.walk() {
            let path = if visit.path.is_empty() { b"/" } else { visit.path.as_slice() };
            if let Some(id) = merged.get(&visit.id) {
                let place = self.locate(path, false)?;
                if place.node.is_some_and(|old| self.inode(old).is_directory()) {
                    return Err(TreeError::IsADirectory { path: path.into() });
                }
                self.name(path, place, *id)?;
            } else if visit.inode.is_directory() {
                self.replace(path, Inode::directory(visit.inode.metadata().clone()))?;
            } else {
                merged.insert(visit.id, self.replace(path, visit.inode.clone())?);
            }
        }
        Ok(())
    }
}
