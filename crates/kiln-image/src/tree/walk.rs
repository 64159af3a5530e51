//! Going through a whole tree.

use super::{Inode, Kind, NodeId, Tree};

/// One name met on a walk; hard links are met once for each name.
#[derive(Debug, Clone)]
pub struct Visit<'a> {
    /// The path from the root without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// The inode's id, equal for all its names.
    pub id: NodeId,
    /// The inode.
    pub inode: &'a Inode,
}

/// An iterator over every name of a tree, see [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    /// What is still to be visited, the next one last.
    ahead: Vec<(Vec<u8>, NodeId)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self { tree, ahead: vec![(Vec::new(), NodeId::ROOT)] }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Visit<'a>;

    fn next(&mut self) -> Option<Visit<'a>> {
        let (path, id) = self.ahead.pop()?;
        let inode = self.tree.inode(id);
        if let Kind::Directory(children) = inode.kind() {
            for (name, child) in children.iter().rev() {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name);
                self.ahead.push((below, child));
            }
        }
        Some(Visit { path, id, inode })
    }
}
