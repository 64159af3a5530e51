//! Writing EROFS, the kernel's read-only filesystem, from a [`Tree`](crate::tree::Tree).
//!
//! An image is a pure function of the tree and [`Options`]: equal trees give equal bytes, whatever
//! the order in which they were built, the time, the umask or the machine. Nothing is compressed,
//! and only what Linux 5.4 understands is used, so every such kernel mounts it; newer ones mount
//! the file itself, without a loop device.
//!
//! Format: `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst` of the Linux sources.
//! An image is, in blocks of 4096 bytes:
//!
//! ```text
//! 0         1024        1152
//! | unused  | superblock | inodes, each with its extended attributes and | directories' | files' |
//! |         |            | the last part of its content where that fits  | whole blocks | blocks |
//! ```
//!
//! Writing is two passes: `layout` decides from names and lengths alone where everything goes,
//! then [`write()`] streams it out from front to back. Contents are copied from where they are, so
//! memory grows with the number of entries only. A file's inode comes before its data, so the
//! sink need not seek: it may be a file, a pipe or a hash.
//!
//! Limits: what the tree allows, and 2^32 blocks (16 TiB) for the image.

mod dirent;
mod error;
mod format;
mod inode;
mod layout;
mod output;
pub mod read;
mod space;
mod superblock;
mod write;
mod xattr;

pub use error::WriteError;
pub use write::write;

/// What an image says about itself beside its tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// When the image counts as built, in seconds since 1970. Entries whose modification time is
    /// just this take 32 bytes less each.
    pub build_time: i64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Summary {
    /// The image's length in bytes, a multiple of 4096.
    pub length: u64,
    /// How many inodes it has.
    pub inodes: u64,
    /// The filesystem's UUID: derived from the entries' names, metadata and lengths, so that it
    /// is the same for equal trees. It tells images apart for people; it proves nothing.
    pub uuid: [u8; 16],
}
