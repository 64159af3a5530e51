//! Reading EROFS as [`write()`](super::write()) writes it: to compare two images by path, and to
//! look into one without mounting it.
//!
//! What is read may have been altered, so that each length and place in it is bounded: nothing
//! outside the file is read, no directory is entered twice, and what other tools write (compressed
//! data, chunks, shared attributes) is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;

use super::format::{
    BLOCK, BLOCK_BITS, BLOCK_LEN, DIRECTORY, DIRENT_LEN, FIFO, REGULAR, SLOT, SUPERBLOCK_AT,
    SUPERBLOCK_LEN, SYMLINK,
};
use super::inode::DataLayout;
use super::superblock::MAGIC;
use super::xattr;

/// How many entries an image may have.
const MAX_ENTRIES: usize = 4_000_000;
/// The longest content that is read at once, in bytes: directories, links, small files.
const MAX_AT_ONCE: u64 = 64 << 20;
/// The bits of a mode that say what an inode is.
const TYPE_BITS: u16 = 0o170_000;

/// An image that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no image, or not one as Kiln writes them.
    #[error("{path} is not a filesystem that this program can read: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    length: u64,
    root: u64,
    build_time: i64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link, and what it points to.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// One name in an image, with what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path from the root without a first `/`; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// How many names the inode has.
    pub links: u32,
    /// The length of its content in bytes.
    pub size: u64,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where its content is.
    data: Data,
}

/// The places of a content: whole blocks first, then what stands behind the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Data {
    blocks_at: u64,
    in_blocks: u64,
    inline_at: u64,
}

/// An inode as it stands in the image.
struct Inode {
    entry: Entry,
    type_bits: u16,
}

impl Image {
    /// Opens an image.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut image = Self { file, path: path.to_owned(), length, root: 0, build_time: 0 };
        let superblock = image.bytes(SUPERBLOCK_AT as u64, SUPERBLOCK_LEN as u64)?;
        if number(&superblock, 0, 4) != u64::from(MAGIC) {
            return Err(image.form("it has no superblock of EROFS"));
        }
        if superblock[12] != BLOCK_BITS {
            return Err(image.form("its blocks have not 4096 bytes"));
        }
        image.root = number(&superblock, 14, 2);
        image.build_time = i64::from_le_bytes(array(&superblock, 24));
        Ok(image)
    }

    /// Every name, each directory before what is in it, names in byte order.
    pub fn entries(&self) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        let mut entered = BTreeSet::new();
        let mut ahead = vec![(Vec::new(), self.root)];
        while let Some((path, nid)) = ahead.pop() {
            let entry = self.entry(path, nid)?;
            if entry.kind == EntryKind::Directory {
                if !entered.insert(nid) {
                    return Err(self.form("a directory has two names"));
                }
                for (name, child) in self.children(&entry)?.into_iter().rev() {
                    let mut path = entry.path.clone();
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend(name);
                    ahead.push((path, child));
                }
            }
            entries.push(entry);
            if entries.len() + ahead.len() > MAX_ENTRIES {
                return Err(self.form("it has too many entries"));
            }
        }
        Ok(entries)
    }

    /// The entry at a path from the root, if there is one. Links are not followed.
    pub fn find(&self, path: &str) -> Result<Option<Entry>, ReadError> {
        let mut entry = self.entry(Vec::new(), self.root)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if entry.kind != EntryKind::Directory {
                return Ok(None);
            }
            let children = self.children(&entry)?;
            let Some((_, nid)) = children.iter().find(|(child, _)| child == name.as_bytes()) else {
                return Ok(None);
            };
            let mut below = entry.path;
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name.as_bytes());
            entry = self.entry(below, *nid)?;
        }
        Ok(Some(entry))
    }

    /// The content of an entry of at most 64 MiB.
    pub fn content(&self, entry: &Entry) -> Result<Vec<u8>, ReadError> {
        if entry.size > MAX_AT_ONCE {
            return Err(self.form("a file is too long to be read at once"));
        }
        let Data { blocks_at, in_blocks, inline_at } = entry.data;
        let mut bytes = self.bytes(blocks_at, in_blocks)?;
        bytes.extend(self.bytes(inline_at, entry.size - in_blocks)?);
        Ok(bytes)
    }

    /// The SHA-256 of an entry's content.
    pub fn digest(&self, entry: &Entry) -> Result<Digest, ReadError> {
        let Data { blocks_at, in_blocks, inline_at } = entry.data;
        let ranges = [(blocks_at, in_blocks), (inline_at, entry.size - in_blocks)];
        for (at, length) in ranges {
            self.inside(at, length)?;
        }
        let reader = Ranges { file: &self.file, ranges };
        let sum = crate::checksum::of_reader(reader);
        let (digest, _) =
            sum.map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        Ok(digest)
    }

    fn entry(&self, path: Vec<u8>, nid: u64) -> Result<Entry, ReadError> {
        let Inode { mut entry, type_bits } = self.inode(nid)?;
        entry.path = path;
        entry.kind = if type_bits == DIRECTORY.mode {
            EntryKind::Directory
        } else if type_bits == REGULAR.mode {
            EntryKind::File
        } else if type_bits == SYMLINK.mode {
            EntryKind::Symlink(self.content(&entry)?)
        } else if type_bits == FIFO.mode {
            EntryKind::Fifo
        } else {
            return Err(self.form("an entry is neither file, directory, link nor pipe"));
        };
        Ok(entry)
    }

    fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let at = nid.checked_mul(SLOT).ok_or_else(|| self.form("an inode is outside"))?;
        let head = self.bytes(at, 32)?;
        let format = number(&head, 0, 2);
        let extended = format & 1 == 1;
        let head = if extended { self.bytes(at, 64)? } else { head };
        let inline = match format >> 1 {
            layout if layout == DataLayout::Plain as u64 => false,
            layout if layout == DataLayout::Inline as u64 => true,
            _ => return Err(self.form("a content is compressed or in chunks")),
        };
        let half = |at| u32::from(u16::from_le_bytes(array(&head, at)));
        let word = |at| u32::from_le_bytes(array(&head, at));
        let mode = u16::from_le_bytes(array(&head, 4));
        let (links, size, uid, gid, mtime) = if extended {
            let mtime = i64::from_le_bytes(array(&head, 32));
            (word(44), number(&head, 8, 8), word(24), word(28), mtime)
        } else {
            (half(6), number(&head, 8, 4), half(24), half(26), self.build_time)
        };
        let xattr_length = xattr::length(u16::from_le_bytes(array(&head, 2)));
        let xattrs_at = at + head.len() as u64;
        let xattrs = xattr::decode(&self.bytes(xattrs_at, xattr_length)?)
            .ok_or_else(|| self.form("an extended attribute can't be read"))?;
        let data = Data {
            blocks_at: u64::from(word(16)) * BLOCK,
            in_blocks: if inline { size - size % BLOCK } else { size },
            inline_at: xattrs_at + xattr_length,
        };
        let (path, kind) = (Vec::new(), EntryKind::Fifo);
        let entry = Entry {
            path,
            kind,
            mode: mode & !TYPE_BITS,
            uid,
            gid,
            mtime,
            links,
            size,
            xattrs,
            data,
        };
        Ok(Inode { entry, type_bits: mode & TYPE_BITS })
    }

    /// The names in a directory, without `.` and `..`.
    fn children(&self, directory: &Entry) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
        let bytes = self.content(directory)?;
        let mut children = Vec::new();
        for block in bytes.chunks(BLOCK_LEN) {
            let wrong = || self.form("a directory can't be read");
            let first = block.get(8..10).ok_or_else(wrong)?;
            let count = usize::from(u16::from_le_bytes(array(first, 0))) / DIRENT_LEN;
            let name_at = |index: usize| -> Option<usize> {
                let at = index * DIRENT_LEN + 8;
                let at = block.get(at..at + 2).filter(|_| index < count)?;
                Some(usize::from(u16::from_le_bytes(array(at, 0))))
            };
            for index in 0..count {
                let start = name_at(index).ok_or_else(wrong)?;
                let end = name_at(index + 1).unwrap_or(block.len());
                let name = block.get(start..end).ok_or_else(wrong)?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if name.is_empty() || name.contains(&b'/') {
                    return Err(wrong());
                }
                let nid = number(block, index * DIRENT_LEN, 8);
                if name != b"." && name != b".." {
                    children.push((name.to_vec(), nid));
                }
            }
        }
        Ok(children)
    }

    /// Bytes of the image.
    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, ReadError> {
        self.inside(at, length)?;
        let length = usize::try_from(length).map_err(|_| self.form("a content is too long"))?;
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    fn inside(&self, at: u64, length: u64) -> Result<(), ReadError> {
        let end = at.checked_add(length).filter(|end| length == 0 || *end <= self.length);
        end.map(drop).ok_or_else(|| self.form("something in it is outside of the file"))
    }

    fn form(&self, reason: &'static str) -> ReadError {
        ReadError::Form { path: self.path.clone(), reason }
    }
}

/// Two parts of a file, one after the other.
struct Ranges<'a> {
    file: &'a File,
    ranges: [(u64, u64); 2],
}

impl Read for Ranges<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((at, length)) = self.ranges.iter_mut().find(|(_, length)| *length > 0) else {
            return Ok(0);
        };
        let most = usize::try_from(*length).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], *at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *at += count as u64;
        *length -= count as u64;
        Ok(count)
    }
}

/// The `N` bytes at an offset that is inside.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// A number of up to eight bytes at an offset that is inside.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
