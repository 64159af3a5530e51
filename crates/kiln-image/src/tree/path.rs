//! From a path to its place in the tree, through symlinks and never out of the root.

use super::{Kind, MAX_NAME, MAX_PATH, NodeId, Tree, TreeError};

/// How many symlinks a path can lead through, as in the kernel's `path_resolution(7)`.
const MAX_SYMLINKS: usize = 40;

/// The names of a checked path, from the root on; `.` and doubled slashes are left out.
#[derive(Debug)]
pub(super) struct Components<'a> {
    rest: &'a [u8],
}

impl<'a> Components<'a> {
    /// Checks `path`, as it came from outside.
    pub(super) fn parse(path: &'a [u8]) -> Result<Self, TreeError> {
        if path.is_empty() {
            return Err(TreeError::Empty);
        }
        if path.len() > MAX_PATH {
            return Err(TreeError::LongPath { path: path[..64].into(), length: path.len() });
        }
        if path.contains(&0) {
            return Err(TreeError::Nul { path: path.into() });
        }
        for name in (Self { rest: path }) {
            if name == b".." {
                return Err(TreeError::Parent { path: path.into() });
            }
            if name.len() > MAX_NAME {
                return Err(TreeError::LongName { path: path.into(), length: name.len() });
            }
        }
        Ok(Self { rest: path })
    }
}

impl<'a> Iterator for Components<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|byte| *byte == b'/').unwrap_or(self.rest.len());
            let name = &self.rest[..end];
            self.rest = &self.rest[(end + 1).min(self.rest.len())..];
            if !name.is_empty() && name != b"." {
                return Some(name);
            }
        }
        None
    }
}

/// A place in a tree: a name in a directory, and what stands there.
#[derive(Debug)]
pub(super) struct Location {
    /// The directory.
    pub(super) parent: NodeId,
    /// The name in it; empty when the place was reached by no name, as the root is.
    pub(super) name: Box<[u8]>,
    /// What stands there.
    pub(super) node: Option<NodeId>,
}

impl Tree {
    /// Finds the place that `path` names; `follow` decides about a symlink at its end.
    ///
    /// Everything before the end must exist.
    pub(super) fn locate(&self, path: &[u8], follow: bool) -> Result<Location, TreeError> {
        let mut ahead: Vec<&[u8]> = Components::parse(path)?.collect();
        ahead.reverse();
        let mut above = vec![NodeId::ROOT];
        let mut symlinks = 0;
        while let Some(name) = ahead.pop() {
            let parent = above.last().copied().unwrap_or(NodeId::ROOT);
            if name == b".." {
                above.truncate((above.len() - 1).max(1));
                continue;
            }
            let node = self.child(parent, name);
            let last = ahead.is_empty();
            match node.map(|id| (id, self.inode(id).kind())) {
                Some((_, Kind::Symlink(target))) if follow || !last => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(TreeError::Loop { path: path.into() });
                    }
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    let from = ahead.len();
                    ahead.extend(Components { rest: target });
                    ahead[from..].reverse();
                }
                _ if last => return Ok(Location { parent, name: name.into(), node }),
                Some((id, Kind::Directory(_))) => above.push(id),
                Some(_) => return Err(TreeError::NotADirectory { path: path.into() }),
                None => {
                    return Err(TreeError::NoDirectory { path: path.into(), name: name.into() });
                }
            }
        }
        let here = above.last().copied().unwrap_or(NodeId::ROOT);
        Ok(Location { parent: here, name: Box::default(), node: Some(here) })
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match self.inode(parent).kind() {
            Kind::Directory(children) => children.get(name),
            _ => None,
        }
    }
}
