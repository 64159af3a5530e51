//! What a tree refuses.

use std::fmt;

use super::{MAX_ENTRIES, MAX_NAME, MAX_PATH, MAX_TARGET, MAX_XATTR_VALUE, MAX_XATTRS};

/// A path of a tree, for messages: bytes that are no UTF-8 or no visible text are escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct ShownPath(Box<[u8]>);

impl<T: AsRef<[u8]>> From<T> for ShownPath {
    fn from(path: T) -> Self {
        Self(path.as_ref().into())
    }
}

impl fmt::Display for ShownPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"")?;
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        write!(f, "\"")
    }
}

impl fmt::Debug for ShownPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a change of a tree, or a look into it, was refused.
///
/// A refused change leaves the tree as it was; only [`super::Tree::merge`] and
/// [`super::Tree::make_directories`] may have done a part of their work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The path is empty.
    #[error("an empty path names nothing in the image; write the path from its root, as in /etc")]
    Empty,
    /// The path has a component `..`.
    #[error("path {path} contains `..`; write the path from the image's root without it")]
    Parent {
        /// The path as given.
        path: ShownPath,
    },
    /// The path or symlink target has a zero byte.
    #[error("path {path} contains a NUL byte, which no file name can")]
    Nul {
        /// The path as given.
        path: ShownPath,
    },
    /// A name is longer than [`MAX_NAME`].
    #[error("path {path} has a name of {length} bytes; a name can have {MAX_NAME}")]
    LongName {
        /// The path as given.
        path: ShownPath,
        /// The name's length in bytes.
        length: usize,
    },
    /// The path is longer than [`MAX_PATH`].
    #[error("a path of {length} bytes starting {path} is too long; a path can have {MAX_PATH}")]
    LongPath {
        /// The path's first bytes.
        path: ShownPath,
        /// Its whole length in bytes.
        length: usize,
    },
    /// A symlink's target is empty or longer than [`MAX_TARGET`].
    #[error("symlink {path} has a target of {length} bytes; it can have 1 to {MAX_TARGET}")]
    Target {
        /// The symlink.
        path: ShownPath,
        /// The target's length in bytes.
        length: usize,
    },
    /// The mode has bits beyond the permission, set-id and sticky bits.
    #[error("mode {mode:#o} of {path} has bits beyond 07777")]
    Mode {
        /// The entry.
        path: ShownPath,
        /// The mode as given.
        mode: u16,
    },
    /// An extended attribute that can't be stored.
    #[error(
        "extended attribute {name} of {path} cannot be stored: names are 1 to 255 bytes in user., \
         trusted., security. or the POSIX ACLs, a value has at most {MAX_XATTR_VALUE} bytes, all \
         of one file {MAX_XATTRS}"
    )]
    Xattr {
        /// The entry.
        path: ShownPath,
        /// The attribute's name.
        name: ShownPath,
    },
    /// Something is there already.
    #[error("{path} exists already; remove it first")]
    Exists {
        /// The path as given.
        path: ShownPath,
    },
    /// Nothing is there.
    #[error("{path} does not exist in the image")]
    NotFound {
        /// The path as given.
        path: ShownPath,
    },
    /// A directory on the way is missing.
    #[error("{path} needs a directory {name} on the way to it, which does not exist in the image")]
    NoDirectory {
        /// The path as given.
        path: ShownPath,
        /// The missing directory's name.
        name: ShownPath,
    },
    /// A directory is needed there, and something else is.
    #[error("{path} is not a directory; remove it first or choose another path")]
    NotADirectory {
        /// The path.
        path: ShownPath,
    },
    /// Something else than a directory is needed there.
    #[error("{path} is a directory; remove it first or choose another path")]
    IsADirectory {
        /// The path.
        path: ShownPath,
    },
    /// The root can't be removed, replaced by a file, or linked.
    #[error("{path} is the image's root, which must stay a directory")]
    Root {
        /// The path as given.
        path: ShownPath,
    },
    /// Symlinks lead in a circle.
    #[error("too many symlinks on the way to {path}; they probably lead in a circle")]
    Loop {
        /// The path as given.
        path: ShownPath,
    },
    /// The tree is full.
    #[error("{path} is one entry too many; an image can have {MAX_ENTRIES}")]
    TooMany {
        /// The path as given.
        path: ShownPath,
    },
}
