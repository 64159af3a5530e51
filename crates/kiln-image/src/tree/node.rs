//! What stands in a tree: inodes, their metadata and their contents.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{MAX_TARGET, MAX_XATTR_VALUE, MAX_XATTRS, TreeError};

/// Which inode of its tree; hard links share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// The id at `index`, which is below [`super::MAX_ENTRIES`].
    pub(super) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a tree holds fewer inodes than u32 can count"))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Owner, permissions, time and extended attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permission, set-id and sticky bits, at most 07777.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by full name (`security.capability`), values as the kernel shows them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Prefixes that the names of extended attributes can have.
const XATTR_PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// Whole names beside them.
const XATTR_NAMES: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

impl Metadata {
    /// Metadata of user and group 0 at time 0, with `mode` and no extended attributes.
    pub fn new(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }

    /// The same, owned by `uid` and `gid`.
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// The same, modified at `mtime`, in seconds since 1970.
    #[must_use]
    pub fn modified_at(mut self, mtime: i64) -> Self {
        self.mtime = mtime;
        self
    }

    /// The same with one more extended attribute.
    #[must_use]
    pub fn with_xattr(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.xattrs.insert(name.into(), value.into());
        self
    }

    /// Refuses what no image can hold; `path` is for the message.
    pub(super) fn check(&self, path: &[u8]) -> Result<(), TreeError> {
        if self.mode > 0o7777 {
            return Err(TreeError::Mode { path: path.into(), mode: self.mode });
        }
        let mut total = 0;
        for (name, value) in &self.xattrs {
            total += name.len() + value.len();
            let prefixed = XATTR_PREFIXES
                .iter()
                .any(|prefix| name.strip_prefix(*prefix).is_some_and(|rest| !rest.is_empty()));
            let known = prefixed || XATTR_NAMES.contains(&name.as_slice());
            let fits = name.len() <= 255
                && !name.contains(&0)
                && value.len() <= MAX_XATTR_VALUE
                && total <= MAX_XATTRS;
            if !known || !fits {
                return Err(TreeError::Xattr { path: path.into(), name: name.into() });
            }
        }
        Ok(())
    }
}

/// What a regular file contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The bytes themselves.
    Bytes(Arc<[u8]>),
    /// `length` bytes from `offset` on of a file on this machine, which must not change.
    Stored {
        /// The file.
        path: Arc<Path>,
        /// Where in it the content starts, in bytes.
        offset: u64,
        /// How many bytes the content has.
        length: u64,
    },
}

impl Content {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stored { length, .. } => *length,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes; for small files, as all of it is held in memory.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.to_vec()),
            Self::Stored { path, offset, length } => {
                let length = usize::try_from(*length).map_err(io::Error::other)?;
                let mut bytes = vec![0; length];
                File::open(path)?.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes)
            }
        }
    }
}

impl<T: Into<Arc<[u8]>>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// The entries of a directory by name.
#[derive(Debug, Clone, Default)]
pub struct Children(BTreeMap<Box<[u8]>, NodeId>);

impl Children {
    /// The entry called `name`.
    pub fn get(&self, name: &[u8]) -> Option<NodeId> {
        self.0.get(name).copied()
    }

    /// Every name with its inode, in byte order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], NodeId)> + ExactSizeIterator {
        self.0.iter().map(|(name, id)| (&**name, *id))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, name: Box<[u8]>, id: NodeId) {
        self.0.insert(name, id);
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<NodeId> {
        self.0.remove(name)
    }
}

/// What an inode is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Directory(Children),
    /// A regular file.
    File(Content),
    /// A symlink with its target.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
}

/// One directory, file, symlink or fifo.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Owner, permissions, time, extended attributes.
    pub(super) metadata: Metadata,
    /// What it is, with its content.
    pub(super) kind: Kind,
}

impl Inode {
    /// An empty directory.
    pub fn directory(metadata: Metadata) -> Self {
        Self { metadata, kind: Kind::Directory(Children::default()) }
    }

    /// A regular file.
    pub fn file(metadata: Metadata, content: impl Into<Content>) -> Self {
        Self { metadata, kind: Kind::File(content.into()) }
    }

    /// A symlink to `target`; its mode is always shown as 0777.
    pub fn symlink(metadata: Metadata, target: impl AsRef<[u8]>) -> Self {
        let metadata = Metadata { mode: 0o777, ..metadata };
        Self { metadata, kind: Kind::Symlink(target.as_ref().into()) }
    }

    /// A named pipe.
    pub fn fifo(metadata: Metadata) -> Self {
        Self { metadata, kind: Kind::Fifo }
    }

    /// Owner, permissions, time, extended attributes.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What it is, with its content.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// The content, when it is a regular file.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Refuses what no image can hold; `path` is for the message.
    pub(super) fn check(&self, path: &[u8]) -> Result<(), TreeError> {
        self.metadata.check(path)?;
        match &self.kind {
            Kind::Symlink(target) if target.is_empty() || target.len() > MAX_TARGET => {
                Err(TreeError::Target { path: path.into(), length: target.len() })
            }
            Kind::Symlink(target) if target.contains(&0) => {
                Err(TreeError::Nul { path: target.into() })
            }
            _ => Ok(()),
        }
    }
}
