//! What an instance's root filesystem is mounted from, and what keeps it from being altered.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::trust::Integrity;
use serde::{Deserialize, Serialize};

/// An EROFS file, and what the launcher is to see to before it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// The file, an absolute path on the host.
    pub path: PathBuf,
    /// The checksum of its content; `None` where the caller does not say.
    pub digest: Option<Digest>,
    /// What keeps it from being altered.
    pub seal: Seal,
}

/// What keeps a file from being altered while it is in use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seal {
    /// It was read and found right when it was as the stamp says, and is watched since.
    Watched(Stamp),
    /// The kernel compares each block that is read with the tree of this root.
    DmVerity {
        /// The file of the tree, an absolute path on the host.
        tree: PathBuf,
        /// The root of the tree.
        root: Digest,
    },
    /// The kernel lets nobody write to the file, and compares each block of it that is read.
    FsVerity {
        /// What the kernel measures of the file.
        digest: Digest,
    },
}

impl Seal {
    /// In which way the file is kept from being altered.
    pub fn integrity(&self) -> Integrity {
        match self {
            Self::Watched(_) => Integrity::Watched,
            Self::DmVerity { .. } => Integrity::DmVerity,
            Self::FsVerity { .. } => Integrity::FsVerity,
        }
    }
}

/// By what a file that was written to, or put in another's place, is told from what was read: the
/// kernel sets the time of the change, and nobody can set it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The filesystem's device number.
    pub device: u64,
    /// The file's number in it.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// When anything of the file was changed: seconds and nanoseconds.
    pub changed: (i64, i64),
    /// When its content was changed, as anybody may claim: seconds and nanoseconds.
    pub modified: (i64, i64),
}

impl Stamp {
    /// That of a file with this metadata.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }

    /// Whether both are of one file, whatever has been done to it.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl ImageSource {
    /// The file at `path` as it is now, for which the caller vouches.
    pub fn as_it_is(path: &Path) -> io::Result<Self> {
        let stamp = Stamp::of(&std::fs::metadata(path)?);
        Ok(Self { path: path.to_owned(), digest: None, seal: Seal::Watched(stamp) })
    }
}
