//! Directories: blocks of entries, then their names, all in byte order.
//!
//! Each block starts with its 12-byte entries and goes on with the names that they point at. The
//! first entry's name offset also tells how many entries the block has, and a name ends where the
//! next begins, or at the block's end or first zero byte.

use super::format::{BLOCK, BLOCK_LEN, DIRENT_LEN, FileType};

/// One entry to be: name, inode number, type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) nid: u64,
    pub(super) file_type: FileType,
}

/// The names of a directory in the order of the format: `.` and `..` stand among the others.
pub(super) fn with_dots<'a, T: Copy>(
    children: impl Iterator<Item = (&'a [u8], T)>,
    this: T,
    parent: T,
) -> impl Iterator<Item = (&'a [u8], T)> {
    let mut dots = [(b".".as_slice(), this), (b"..".as_slice(), parent)].into_iter().peekable();
    let mut children = children.peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some(dot), Some(child)) if child.0 < dot.0 => children.next(),
        (Some(_), _) => dots.next(),
        (None, _) => children.next(),
    })
}

/// How many bytes a directory of these names takes; its last block counts as far as it is used.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut full = 0;
    let mut used = 0;
    for name in names {
        let need = (DIRENT_LEN + name.len()) as u64;
        if used + need > BLOCK {
            full += BLOCK;
            used = 0;
        }
        used += need;
    }
    full + used
}

/// The bytes of a directory, as long as [`size`] says; `entries` come from [`with_dots`].
pub(super) fn encode<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = Vec::new();
    let mut used = 0;
    for entry in entries {
        let need = (DIRENT_LEN + entry.name.len()) as u64;
        if used + need > BLOCK {
            encode_block(&block, &mut out);
            out.resize(out.len().next_multiple_of(BLOCK_LEN), 0);
            block.clear();
            used = 0;
        }
        used += need;
        block.push(entry);
    }
    encode_block(&block, &mut out);
    out
}

fn encode_block(block: &[Entry<'_>], out: &mut Vec<u8>) {
    let mut name_at = block.len() * DIRENT_LEN;
    for entry in block {
        out.extend(entry.nid.to_le_bytes());
        out.extend(u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
        out.extend([entry.file_type.number, 0]);
        name_at += entry.name.len();
    }
    for entry in block {
        out.extend(entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::REGULAR;
    use super::*;

    #[test]
    fn dots_stand_among_the_names_in_byte_order() {
        let names = [b"+".as_slice(), b"-x", b".-", b".a", b"a"];
        let all = with_dots(names.iter().map(|name| (*name, ())), (), ());
        let all: Vec<_> = all.map(|(name, ())| name).collect();
        assert_eq!(all, [b"+".as_slice(), b"-x", b".", b".-", b"..", b".a", b"a"]);
        assert!(all.is_sorted());
    }

    #[test]
    fn a_block_is_filled_to_its_last_byte_and_no_further() {
        // 15 entries of 12 + 255 bytes leave 91 bytes: a name of 79 fits, one of 80 does not.
        let mut names = vec![vec![b'n'; 255]; 15];
        names.push(vec![b'n'; 79]);
        assert_eq!(size(names.iter().map(Vec::as_slice)), 4096);
        names[15].push(b'n');
        assert_eq!(size(names.iter().map(Vec::as_slice)), 4096 + 92);
        let entry = |name| Entry { name, nid: 7, file_type: REGULAR };
        let bytes = encode(names.iter().map(|name| entry(name)));
        assert_eq!(bytes.len(), 4096 + 92);
        assert_eq!(bytes[4096..4108], [7, 0, 0, 0, 0, 0, 0, 0, 12, 0, 1, 0]);
    }
}
