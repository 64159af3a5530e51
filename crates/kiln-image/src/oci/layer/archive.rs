//! Reading tar archives: ustar, GNU and pax, with sparse files of both kinds.
//!
//! The archive lies unpacked in a file, and contents stay where they are. Headers that describe a
//! later entry are bounded by themselves, so that memory does not follow from what an archive
//! claims.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::pax::{self, Records, XATTR, decimal};

const BLOCK_BYTES: u64 = 512;
/// The longest header that describes a later entry, in bytes; Linux has paths of 4 KiB and extended
/// attributes of 64 KiB each.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// The most pieces of a sparse file.
const MAX_PIECES: usize = 100_000;

/// A part of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it stands in the file.
    pub(super) at: u64,
    /// Where it stands in the archive.
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// One entry as the archive gives it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: i64,
    pub(super) xattrs: Records,
    /// The length of the content in bytes, and the parts of it that are not zeros.
    pub(super) size: u64,
    pub(super) pieces: Vec<Piece>,
}

/// An archive in a file.
pub(super) struct Archive {
    file: BufReader<File>,
    at: u64,
    length: u64,
}

/// What the headers before an entry said of it.
#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Archive {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(64 << 10, file), at: 0, length })
    }

    /// The next entry; none at the end. An archive may end without its end mark, since what
    /// vouches for its length is its checksum.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut ahead = Ahead::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = match header.entry_type() {
                kind if is_header_only(kind) => 0,
                // The records of an entry have the last word on its length.
                kind if is_plain(kind) => match ahead.records.get(&b"size"[..]) {
                    Some(size) => decimal(size).ok_or_else(|| broken("a length is no number"))?,
                    None => header.entry_size()?,
                },
                _ => header.entry_size()?,
            };
            match header.entry_type() {
                EntryType::GNULongName => ahead.path = Some(self.text(size)?),
                EntryType::GNULongLink => ahead.link = Some(self.text(size)?),
                EntryType::XHeader => ahead.records = pax::parse(&self.head(size)?)?,
                // What holds for all entries is a comment in practice, such as git's commit.
                EntryType::XGlobalHeader => self.skip(size)?,
                _ => return self.entry(&header, size, ahead).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, size: u64, mut ahead: Ahead) -> io::Result<Entry> {
        let records = &mut ahead.records;
        let mut record = |key: &str| records.remove(key.as_bytes());
        let number = |text: Option<Vec<u8>>, field: io::Result<u64>| match text {
            Some(text) => decimal(&text).ok_or_else(|| broken("a number is damaged")),
            None => field,
        };
        let (uid, gid) =
            (number(record("uid"), header.uid())?, number(record("gid"), header.gid())?);
        let mtime = match record("mtime") {
            Some(text) => pax::seconds(&text).ok_or_else(|| broken("a time is damaged"))?,
            None => signed_time(header)?,
        };
        let sparse_name = record("GNU.sparse.name");
        let path = sparse_name.or_else(|| record("path")).or(ahead.path);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = record("linkpath").or(ahead.link);
        let link =
            link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let mut entry = Entry {
            path,
            kind: header.entry_type(),
            link,
            mode: header.mode()?,
            uid,
            gid,
            mtime,
            xattrs: Records::new(),
            size,
            pieces: Vec::new(),
        };
        self.content(header, &ahead.records, &mut entry)?;
        for (key, value) in ahead.records {
            if let Some(name) = key.strip_prefix(XATTR) {
                entry.xattrs.insert(name.to_vec(), value);
            }
        }
        Ok(entry)
    }

    /// Finds out where the content stands, and goes behind it.
    fn content(&mut self, header: &Header, records: &Records, entry: &mut Entry) -> io::Result<()> {
        let stored = entry.size;
        let extra = if header.entry_type() == EntryType::GNUSparse {
            self.old_sparse(header, entry)?;
            0
        } else if records.contains_key(&b"GNU.sparse.major"[..]) {
            self.new_sparse(records, entry)?
        } else if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(broken("sparse files of the formats 0.0 and 0.1 are not known"));
        } else {
            if stored > 0 {
                entry.pieces.push(Piece { at: 0, offset: self.at, length: stored });
            }
            0
        };
        let stored =
            stored.checked_sub(extra).ok_or_else(|| broken("a sparse file is too short"))?;
        let needed = entry.pieces.iter().map(|piece| piece.offset + piece.length).max();
        if needed.is_some_and(|end| end > self.at + stored) {
            return Err(broken("the parts of a sparse file are longer than it"));
        }
        self.skip(stored)
    }

    /// The pieces that a GNU header and those behind it list.
    fn old_sparse(&mut self, header: &Header, entry: &mut Entry) -> io::Result<()> {
        let gnu = header.as_gnu().ok_or_else(|| broken("a sparse file has no GNU header"))?;
        let mut listed = Vec::new();
        let mut take = |part: &tar::GnuSparseHeader| -> io::Result<()> {
            if !part.is_empty() {
                listed.push((part.offset()?, part.length()?));
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut take)?;
        let mut more = gnu.is_extended();
        for _ in 0..MAX_PIECES / 21 {
            if !more {
                break;
            }
            let mut extended = GnuExtSparseHeader::new();
            self.file.read_exact(extended.as_mut_bytes())?;
            self.at += BLOCK_BYTES;
            extended.sparse().iter().try_for_each(&mut take)?;
            more = extended.is_extended();
        }
        if more {
            return Err(broken("a sparse file has too many parts"));
        }
        entry.size = gnu.real_size()?;
        entry.pieces = self.pieces(listed, entry.size)?;
        Ok(())
    }

    /// The pieces that stand as text before the content (format 1.0). How many bytes that took.
    fn new_sparse(&mut self, records: &Records, entry: &mut Entry) -> io::Result<u64> {
        let text = |key: &str| records.get(key.as_bytes()).map(Vec::as_slice).unwrap_or_default();
        if (text("GNU.sparse.major"), text("GNU.sparse.minor")) != (b"1", b"0") {
            return Err(broken("a sparse file is of a format that is not known"));
        }
        let size = decimal(text("GNU.sparse.realsize"));
        entry.size = size.ok_or_else(|| broken("a sparse file has no length"))?;
        let start = self.at;
        let mut numbers = Numbers { file: &mut self.file, taken: 0 };
        let count = usize::try_from(numbers.next()?).unwrap_or(usize::MAX);
        if count > MAX_PIECES {
            return Err(broken("a sparse file has too many parts"));
        }
        let mut listed = Vec::with_capacity(count);
        for _ in 0..count {
            listed.push((numbers.next()?, numbers.next()?));
        }
        self.at += numbers.taken;
        self.skip_exactly(padding(self.at - start))?;
        entry.pieces = self.pieces(listed, entry.size)?;
        Ok(self.at - start)
    }

    /// Gives listed parts their places, one behind the other, from here on.
    fn pieces(&self, listed: Vec<(u64, u64)>, size: u64) -> io::Result<Vec<Piece>> {
        let (mut offset, mut end) = (self.at, 0);
        let mut pieces = Vec::with_capacity(listed.len());
        for (at, length) in listed {
            let stop = at.checked_add(length).filter(|stop| *stop <= size);
            let (Some(stop), true) = (stop, at >= end) else {
                return Err(broken("the parts of a sparse file overlap or are beyond its end"));
            };
            if length > 0 {
                pieces.push(Piece { at, offset, length });
            }
            offset += length;
            end = stop;
        }
        Ok(pieces)
    }

    /// The next header; none at the end or at the end mark.
    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.at == self.length {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.file.read_exact(header.as_mut_bytes())?;
        self.at += BLOCK_BYTES;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as spaces.
        let spaces = 8 * u32::from(b' ');
        let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|b| u32::from(*b)).sum();
        if header.cksum()? != sum + spaces {
            return Err(broken("a header has the wrong checksum"));
        }
        Ok(Some(header))
    }

    /// The content of a header that describes a later entry.
    fn head(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_HEADER_BYTES {
            return Err(broken("a header is longer than any path or attribute"));
        }
        let mut bytes = Vec::new();
        (&mut self.file).take(size).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        if (bytes.len() as u64) < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.skip_exactly(padding(size))?;
        Ok(bytes)
    }

    /// The same as text that a zero ends.
    fn text(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = self.head(size)?;
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        Ok(bytes)
    }

    /// Goes behind a content and its padding.
    fn skip(&mut self, size: u64) -> io::Result<()> {
        if self.at.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.skip_exactly(size)?;
        self.skip_exactly(padding(size).min(self.length - self.at))
    }

    fn skip_exactly(&mut self, count: u64) -> io::Result<()> {
        self.at += count;
        match i64::try_from(count) {
            Ok(count) => self.file.seek_relative(count),
            Err(_) => self.file.seek(SeekFrom::Start(self.at)).map(drop),
        }
    }
}

/// Whether an entry is one itself, and no header for a later one.
fn is_plain(kind: EntryType) -> bool {
    !matches!(
        kind,
        EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader
    )
}

/// Whether nothing follows the header, whatever length some programs write there.
fn is_header_only(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Directory
            | EntryType::Symlink
            | EntryType::Link
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo
    )
}

/// How many bytes fill up the last block.
fn padding(size: u64) -> u64 {
    (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES
}

/// The time in a header, which GNU tar writes in base 256 when it is before 1970.
fn signed_time(header: &Header) -> io::Result<i64> {
    let field = &header.as_old().mtime;
    if field[0] == 0xff {
        let low: [u8; 8] = std::array::from_fn(|at| field[4 + at]);
        return Ok(i64::from_be_bytes(low));
    }
    i64::try_from(header.mtime()?).map_err(|_| broken("a time is beyond all bounds"))
}

/// Decimal numbers, one to a line.
struct Numbers<'a> {
    file: &'a mut BufReader<File>,
    taken: u64,
}

impl Numbers<'_> {
    fn next(&mut self) -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            self.taken += 1;
            match byte[0] {
                b'\n' => return decimal(&digits).ok_or_else(|| broken("a sparse file is damaged")),
                byte if digits.len() < 20 => digits.push(byte),
                _ => return Err(broken("a sparse file is damaged")),
            }
        }
    }
}
