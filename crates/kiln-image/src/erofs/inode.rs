//! Inodes: 32 bytes where everything fits, else 64.

use super::format::{DIRECTORY, FIFO, FileType, REGULAR, SYMLINK};
use crate::tree::{Inode, Kind};

/// Bytes of a compact and of an extended inode.
const COMPACT_LEN: u64 = 32;
const EXTENDED_LEN: u64 = 64;

/// Where an inode's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// All of it in whole blocks.
    Plain = 0,
    /// The last, partial block after the inode, the others in whole blocks.
    Inline = 2,
}

/// Which of the two forms an inode has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Compact,
    Extended,
}

impl Form {
    /// The smallest form that holds `inode` with `nlink` names and `size` bytes of content.
    pub(super) fn of(inode: &Inode, nlink: u32, size: u64, build_time: i64) -> Self {
        let metadata = inode.metadata();
        let small = u32::try_from(size).is_ok()
            && u16::try_from(nlink).is_ok()
            && u16::try_from(metadata.uid).is_ok()
            && u16::try_from(metadata.gid).is_ok();
        if small && metadata.mtime == build_time { Self::Compact } else { Self::Extended }
    }

    pub(super) fn len(self) -> u64 {
        match self {
            Self::Compact => COMPACT_LEN,
            Self::Extended => EXTENDED_LEN,
        }
    }
}

/// What an inode says beside the tree's metadata.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) form: Form,
    pub(super) data: DataLayout,
    /// The extended attributes' length in the format's count, see [`super::xattr::count`].
    pub(super) xattr_count: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    /// The first whole block of content; 0 where there is none.
    pub(super) block: u32,
    /// A number for `stat` on 32-bit kernels.
    pub(super) number: u32,
}

pub(super) fn file_type(inode: &Inode) -> FileType {
    match inode.kind() {
        Kind::Directory(_) => DIRECTORY,
        Kind::File(_) => REGULAR,
        Kind::Symlink(_) => SYMLINK,
        Kind::Fifo => FIFO,
    }
}

/// Appends `inode` to `out`.
pub(super) fn encode(inode: &Inode, place: &Place, out: &mut Vec<u8>) {
    let metadata = inode.metadata();
    let mode = file_type(inode).mode | metadata.mode;
    let format = (place.form as u16) | ((place.data as u16) << 1);
    out.extend(format.to_le_bytes());
    out.extend(place.xattr_count.to_le_bytes());
    out.extend(mode.to_le_bytes());
    match place.form {
        Form::Compact => {
            out.extend(half(place.nlink));
            out.extend(u32::try_from(place.size).unwrap_or(u32::MAX).to_le_bytes());
            out.extend([0; 4]);
            out.extend(place.block.to_le_bytes());
            out.extend(place.number.to_le_bytes());
            out.extend(half(metadata.uid));
            out.extend(half(metadata.gid));
            out.extend([0; 4]);
        }
        Form::Extended => {
            out.extend([0; 2]);
            out.extend(place.size.to_le_bytes());
            out.extend(place.block.to_le_bytes());
            out.extend(place.number.to_le_bytes());
            out.extend(metadata.uid.to_le_bytes());
            out.extend(metadata.gid.to_le_bytes());
            out.extend(metadata.mtime.to_le_bytes());
            out.extend([0; 4]);
            out.extend(place.nlink.to_le_bytes());
            out.extend([0; 16]);
        }
    }
}

/// A number that a compact inode has 16 bits for; [`Form::of`] sees to it that it fits.
fn half(value: u32) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;

    fn encoded(metadata: Metadata, nlink: u32, size: u64) -> Vec<u8> {
        let inode = Inode::file(metadata, b"".as_slice());
        let form = Form::of(&inode, nlink, size, 0);
        let data = DataLayout::Inline;
        let place = Place { form, data, xattr_count: 3, nlink, size, block: 9, number: 5 };
        let mut out = Vec::new();
        encode(&inode, &place, &mut out);
        assert_eq!(out.len() as u64, form.len());
        out
    }

    #[test]
    fn what_fits_takes_a_compact_inode() {
        let out = encoded(Metadata::new(0o4755).owned_by(65_535, 1), 65_535, 0xFFFF_FFFF);
        assert_eq!(out[..8], [0x04, 0, 3, 0, 0xED, 0x89, 0xFF, 0xFF]);
        assert_eq!(out[8..16], [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
        assert_eq!(out[16..32], [9, 0, 0, 0, 5, 0, 0, 0, 0xFF, 0xFF, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_file_of_4_gib_takes_an_extended_inode_with_its_whole_size() {
        let out = encoded(Metadata::new(0o644).modified_at(-1), 70_000, 0x1_0000_0002);
        assert_eq!(out[..8], [0x05, 0, 3, 0, 0xA4, 0x81, 0, 0]);
        assert_eq!(out[8..16], [2, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(out[32..44], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
        assert_eq!(out[44..48], 70_000_u32.to_le_bytes());
    }

    #[test]
    fn each_number_too_large_makes_an_inode_extended() {
        let plain = || Metadata::new(0o644);
        assert_eq!(encoded(plain(), 1, 1).len(), 32);
        assert_eq!(encoded(plain().owned_by(65_536, 0), 1, 1).len(), 64);
        assert_eq!(encoded(plain().owned_by(0, 65_536), 1, 1).len(), 64);
        assert_eq!(encoded(plain().modified_at(1), 1, 1).len(), 64);
        assert_eq!(encoded(plain(), 65_536, 1).len(), 64);
        assert_eq!(encoded(plain(), 1, 1 << 32).len(), 64);
    }
}
