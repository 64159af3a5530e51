//! A filesystem tree in memory: what an image will contain, before it is written.
//!
//! Directories keep their names in byte order, so a tree built twice in any order walks and
//! writes the same. File contents may stay on disk ([`Content::Stored`]); the tree itself takes
//! memory in proportion to the number of its entries.
//!
//! Paths are bytes, seen from the tree's root: `usr/bin`, `/usr/bin`, `./usr//bin/` name the same
//! place. Symlinks to directories are followed inside the tree, as `chroot` would, wherever they
//! stand before the last component: with `bin -> usr/bin`, inserting `bin/sh` makes `usr/bin/sh`.
//! A path itself can't contain `..`; a symlink's target can, and stops at the root.
//!
//! Limits: [`MAX_NAME`], [`MAX_PATH`], [`MAX_TARGET`], [`MAX_XATTR_VALUE`], [`MAX_XATTRS`],
//! [`MAX_ENTRIES`]. There are no device nodes and no sockets.

mod error;
mod merge;
mod node;
mod path;
mod walk;

pub use error::{ShownPath, TreeError};
pub use node::{Children, Content, Inode, Kind, Metadata, NodeId};
pub use walk::{Visit, Walk};

use path::{Components, Location};

/// Longest name of one entry, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest path from the root, in bytes, as given by a caller.
pub const MAX_PATH: usize = 4095;
/// Longest symlink target, in bytes.
pub const MAX_TARGET: usize = 4095;
/// Longest value of one extended attribute, in bytes.
pub const MAX_XATTR_VALUE: usize = 65_535;
/// Most bytes of extended attributes (names and values) on one inode.
pub const MAX_XATTRS: usize = 128 * 1024;
/// Most inodes that a tree ever holds, removed ones included.
pub const MAX_ENTRIES: usize = 16 * 1024 * 1024;

/// A filesystem tree; it always has a root directory.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Inodes by [`NodeId`]; the first is the root. Removed ones stay until the tree is dropped.
    inodes: Vec<Inode>,
}

impl Default for Tree {
    /// A tree whose root is empty, mode 0755, of user and group 0, at time 0.
    fn default() -> Self {
        Self { inodes: vec![Inode::directory(Metadata::new(0o755))] }
    }
}

impl Tree {
    /// An empty tree, see [`Tree::default`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `inode` at `path`, whose parent directory must exist and where nothing may be yet.
    pub fn insert(&mut self, path: impl AsRef<[u8]>, inode: Inode) -> Result<NodeId, TreeError> {
        let path = path.as_ref();
        inode.check(path)?;
        let place = self.locate(path, false)?;
        if place.node.is_some() {
            return Err(TreeError::Exists { path: path.into() });
        }
        self.attach(path, place, inode)
    }

    /// Puts `inode` at `path`, in place of what may be there; the parent directory must exist.
    ///
    /// A directory put on a directory, or on a symlink that leads to one, keeps the entries that
    /// are there and takes the new metadata. Only the name is replaced: other hard links of a
    /// replaced file stay. A directory is never replaced by something else, nor the other way
    /// round: [`Tree::remove`] the old one first.
    pub fn replace(&mut self, path: impl AsRef<[u8]>, inode: Inode) -> Result<NodeId, TreeError> {
        let path = path.as_ref();
        inode.check(path)?;
        let place = self.locate(path, false)?;
        let Some(old) = place.node else {
            return self.attach(path, place, inode);
        };
        match (self.inode(old).is_directory(), inode.is_directory()) {
            (true, true) => {
                self.inodes[old.index()].metadata = inode.metadata;
                Ok(old)
            }
            (false, true) => {
                let led = self.locate(path, true)?.node.filter(|id| self.inode(*id).is_directory());
                let led = led.ok_or_else(|| TreeError::NotADirectory { path: path.into() })?;
                self.inodes[led.index()].metadata = inode.metadata;
                Ok(led)
            }
            (true, false) => Err(TreeError::IsADirectory { path: path.into() }),
            (false, false) => self.attach(path, place, inode),
        }
    }

    /// Makes `path` a directory with all that is missing above it, each new one with `metadata`.
    ///
    /// Directories that exist, or symlinks that lead to one, are left as they are.
    pub fn make_directories(
        &mut self,
        path: impl AsRef<[u8]>,
        metadata: &Metadata,
    ) -> Result<NodeId, TreeError> {
        let path = path.as_ref();
        let mut so_far = Vec::new();
        let mut last = NodeId::ROOT;
        for name in Components::parse(path)? {
            if !so_far.is_empty() {
                so_far.push(b'/');
            }
            so_far.extend_from_slice(name);
            let place = self.locate(&so_far, true)?;
            last = match place.node {
                Some(id) if self.inode(id).is_directory() => id,
                Some(_) => return Err(TreeError::NotADirectory { path: so_far.into() }),
                None => self.attach(path, place, Inode::directory(metadata.clone()))?,
            };
        }
        Ok(last)
    }

    /// Gives the file at `existing` a second name, `path`. The names share one inode.
    ///
    /// A file (or symlink, or fifo) that is already at `path` is replaced; a directory at either
    /// place is refused.
    pub fn link(
        &mut self,
        existing: impl AsRef<[u8]>,
        path: impl AsRef<[u8]>,
    ) -> Result<NodeId, TreeError> {
        let (existing, path) = (existing.as_ref(), path.as_ref());
        let found = self.locate(existing, false)?.node;
        let id = found.ok_or_else(|| TreeError::NotFound { path: existing.into() })?;
        if self.inode(id).is_directory() {
            return Err(TreeError::IsADirectory { path: existing.into() });
        }
        let place = self.locate(path, false)?;
        if place.node.is_some_and(|old| self.inode(old).is_directory()) {
            return Err(TreeError::IsADirectory { path: path.into() });
        }
        self.name(path, place, id)?;
        Ok(id)
    }

    /// Takes the entry at `path` out of its directory, with everything below it.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) -> Result<(), TreeError> {
        let path = path.as_ref();
        let place = self.locate(path, false)?;
        if place.name.is_empty() {
            return Err(TreeError::Root { path: path.into() });
        }
        let children = self.children_mut(place.parent);
        match children.and_then(|children| children.remove(&place.name)) {
            Some(_) => Ok(()),
            None => Err(TreeError::NotFound { path: path.into() }),
        }
    }

    /// Gives the inode at `path` new metadata; a symlink at `path` is not followed, and keeps its
    /// mode.
    pub fn set_metadata(
        &mut self,
        path: impl AsRef<[u8]>,
        metadata: Metadata,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        metadata.check(path)?;
        let found = self.locate(path, false)?.node;
        let id = found.ok_or_else(|| TreeError::NotFound { path: path.into() })?;
        let inode = &mut self.inodes[id.index()];
        let fixed = matches!(inode.kind, Kind::Symlink(_)).then_some(inode.metadata.mode);
        inode.metadata = Metadata { mode: fixed.unwrap_or(metadata.mode), ..metadata };
        Ok(())
    }

    /// The inode at `path`; a symlink there is not followed.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<&Inode> {
        let id = self.locate(path.as_ref(), false).ok()?.node?;
        Some(self.inode(id))
    }

    /// The inode that `path` leads to, through symlinks inside the tree.
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> Result<&Inode, TreeError> {
        let path = path.as_ref();
        let found = self.locate(path, true)?.node;
        let id = found.ok_or_else(|| TreeError::NotFound { path: path.into() })?;
        Ok(self.inode(id))
    }

    /// The inode that carries `id`, which must come from this tree.
    pub fn inode(&self, id: NodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// Every entry of the tree, a directory before its entries, names in byte order.
    pub fn walk(&self) -> Walk<'_> {
        Walk::new(self)
    }

    /// How many inodes the tree has ever held: one more than the largest [`NodeId`].
    pub(crate) fn id_bound(&self) -> usize {
        self.inodes.len()
    }

    fn children_mut(&mut self, id: NodeId) -> Option<&mut Children> {
        match &mut self.inodes[id.index()].kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Adds a new inode and names it; a directory comes without its entries.
    fn attach(&mut self, path: &[u8], place: Location, inode: Inode) -> Result<NodeId, TreeError> {
        if self.inodes.len() >= MAX_ENTRIES {
            return Err(TreeError::TooMany { path: path.into() });
        }
        let id = NodeId::new(self.inodes.len());
        self.name(path, place, id)?;
        self.inodes.push(match inode.kind {
            Kind::Directory(_) => Inode::directory(inode.metadata),
            _ => inode,
        });
        Ok(id)
    }

    /// Lets the name at `place` stand for `id`.
    fn name(&mut self, path: &[u8], place: Location, id: NodeId) -> Result<(), TreeError> {
        if place.name.is_empty() {
            return Err(TreeError::Root { path: path.into() });
        }
        let children = self.children_mut(place.parent);
        let children = children.ok_or_else(|| TreeError::NotADirectory { path: path.into() })?;
        children.insert(place.name, id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
