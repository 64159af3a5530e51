//! The numbers of the on-disk format, from the kernel's `fs/erofs/erofs_fs.h`.

/// Bytes in a block: for offsets, as the power of two, for slices.
pub(super) const BLOCK: u64 = 1 << BLOCK_BITS;
pub(super) const BLOCK_BITS: u8 = 12;
pub(super) const BLOCK_LEN: usize = 1 << BLOCK_BITS;
/// How many blocks can be addressed.
pub(super) const MAX_BLOCKS: u64 = u32::MAX as u64;

/// Where the superblock stands, and how long it is.
pub(super) const SUPERBLOCK_AT: usize = 1024;
pub(super) const SUPERBLOCK_LEN: usize = 128;

/// Inodes start at multiples of this; an inode's number (nid) is its offset divided by it.
pub(super) const SLOT: u64 = 32;

/// A directory entry before its name.
pub(super) const DIRENT_LEN: usize = 12;

/// File types, in inodes as `S_IFMT` bits and in directory entries as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileType {
    pub(super) mode: u16,
    pub(super) number: u8,
}

pub(super) const REGULAR: FileType = FileType { mode: 0o100_000, number: 1 };
pub(super) const DIRECTORY: FileType = FileType { mode: 0o040_000, number: 2 };
pub(super) const FIFO: FileType = FileType { mode: 0o010_000, number: 5 };
pub(super) const SYMLINK: FileType = FileType { mode: 0o120_000, number: 7 };

/// `value` rounded up to a multiple of `unit`.
pub(super) fn align(value: u64, unit: u64) -> u64 {
    value.div_ceil(unit) * unit
}
