//! Writing a layer: a tar archive whose bytes follow from the tree alone.
//!
//! Entries are ustar headers; what does not fit into one stands in a pax header before it. Names of
//! owners are left out, since numbers are what counts in an image.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tar::{EntryType, Header};

use super::diff::check_name;
use super::pax::{self, XATTR};
use super::{Change, LayerError, WHITEOUT};
use crate::tree::{Content, Kind, Metadata, NodeId, Tree};

const BLOCK_BYTES: usize = 512;
/// The longest path or target in a plain header.
const MAX_PLAIN_PATH: usize = 100;
/// The largest owner in a plain header: seven octal digits.
const MAX_PLAIN_ID: u32 = 0o777_7777;
/// The largest length and time in a plain header: eleven octal digits.
const MAX_PLAIN_NUMBER: u64 = 0o777_7777_7777;

/// Writes the entries `changes` of `tree` as a whole archive.
pub fn write(tree: &Tree, changes: &[Change], sink: &mut impl Write) -> Result<(), LayerError> {
    let mut writer = Writer { tree, sink, first: HashMap::new(), open: None };
    for change in changes {
        match change {
            Change::There(path) => writer.there(path)?,
            Change::Gone(path) => writer.gone(path)?,
        }
    }
    // Two empty blocks are the end.
    writer.put(&[0; 2 * BLOCK_BYTES])
}

struct Writer<'a, W> {
    tree: &'a Tree,
    sink: &'a mut W,
    /// The first name of each file that was written.
    first: HashMap<NodeId, Vec<u8>>,
    /// The content file that was opened last: neighbours often share one.
    open: Option<(Arc<Path>, File)>,
}

impl<W: Write> Writer<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.sink.write_all(bytes).map_err(LayerError::Sink)
    }

    fn pad(&mut self, length: u64) -> Result<(), LayerError> {
        let over = usize::try_from(length % BLOCK_BYTES as u64).unwrap_or_default();
        self.put(&[0; BLOCK_BYTES][..(BLOCK_BYTES - over) % BLOCK_BYTES])
    }

    fn there(&mut self, path: &[u8]) -> Result<(), LayerError> {
        check_name(path)?;
        let Some((id, inode)) = super::diff::at(self.tree, path) else { return Ok(()) };
        let name = match (path.is_empty(), inode.is_directory()) {
            (true, _) => b"./".to_vec(),
            (false, true) => [path, b"/"].concat(),
            (false, false) => path.to_vec(),
        };
        if let Some(first) = self.first.get(&id) {
            let first = first.clone();
            return self.head(&name, EntryType::Link, &first, inode.metadata(), 0);
        }
        let metadata = inode.metadata();
        match inode.kind() {
            Kind::Directory(_) => self.head(&name, EntryType::Directory, b"", metadata, 0),
            Kind::Symlink(target) => {
                self.first.insert(id, name.clone());
                self.head(&name, EntryType::Symlink, target, metadata, 0)
            }
            Kind::Fifo => {
                self.first.insert(id, name.clone());
                self.head(&name, EntryType::Fifo, b"", metadata, 0)
            }
            Kind::File(content) => {
                self.first.insert(id, name.clone());
                self.head(&name, EntryType::Regular, b"", metadata, content.len())?;
                self.content(path, content)?;
                self.pad(content.len())
            }
        }
    }

    fn gone(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let whiteout = [&path[..name], WHITEOUT, &path[name..]].concat();
        self.head(&whiteout, EntryType::Regular, b"", &Metadata::new(0), 0)
    }

    /// The headers of an entry.
    fn head(
        &mut self,
        path: &[u8],
        kind: EntryType,
        link: &[u8],
        metadata: &Metadata,
        size: u64,
    ) -> Result<(), LayerError> {
        let records = records(path, link, metadata, size);
        if !records.is_empty() {
            let length = records.len() as u64;
            let mut header = plain(b"PaxHeaders.0/entry", EntryType::XHeader, b"", length);
            header.set_mode(0o644);
            header.set_cksum();
            self.put(header.as_bytes())?;
            self.put(&records)?;
            self.pad(length)?;
        }
        let mut header = plain(path, kind, link, size.min(MAX_PLAIN_NUMBER));
        header.set_mode(u32::from(metadata.mode));
        header.set_uid(u64::from(metadata.uid.min(MAX_PLAIN_ID)));
        header.set_gid(u64::from(metadata.gid.min(MAX_PLAIN_ID)));
        header.set_mtime(u64::try_from(metadata.mtime).unwrap_or(0).min(MAX_PLAIN_NUMBER));
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn content(&mut self, entry: &[u8], content: &Content) -> Result<(), LayerError> {
        let (path, offset, length) = match content {
            Content::Bytes(bytes) => return self.put(bytes),
            Content::Stored { path, offset, length } => (path, *offset, *length),
        };
        let read = |source| LayerError::Read { entry: entry.into(), source };
        let file = match self.open.take() {
            Some((open, file)) if open == *path => file,
            _ => File::open(path).map_err(read)?,
        };
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        while done < length {
            let left = usize::try_from(length - done).unwrap_or(usize::MAX);
            let part = &mut buffer[..left.min(256 << 10)];
            file.read_exact_at(part, offset + done).map_err(read)?;
            done += part.len() as u64;
            self.sink.write_all(part).map_err(LayerError::Sink)?;
        }
        self.open = Some((Arc::clone(path), file));
        Ok(())
    }
}

/// The pax records of what has no room in a plain header.
fn records(path: &[u8], link: &[u8], metadata: &Metadata, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut record = |key: &[u8], value: &[u8]| pax::push(&mut records, key, value);
    if path.len() > MAX_PLAIN_PATH {
        record(b"path", path);
    }
    if link.len() > MAX_PLAIN_PATH {
        record(b"linkpath", link);
    }
    if size > MAX_PLAIN_NUMBER {
        record(b"size", size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], metadata.uid), (b"gid", metadata.gid)] {
        if id > MAX_PLAIN_ID {
            record(key, id.to_string().as_bytes());
        }
    }
    if u64::try_from(metadata.mtime).is_err()
        || u64::try_from(metadata.mtime).is_ok_and(|t| t > MAX_PLAIN_NUMBER)
    {
        record(b"mtime", metadata.mtime.to_string().as_bytes());
    }
    for (name, value) in &metadata.xattrs {
        record(&[XATTR, name].concat(), value);
    }
    records
}

/// A header without owner and time; of a longer path or link, the first bytes.
fn plain(path: &[u8], kind: EntryType, link: &[u8], size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let fields = header.as_old_mut();
    let count = path.len().min(MAX_PLAIN_PATH);
    fields.name[..count].copy_from_slice(&path[..count]);
    let count = link.len().min(MAX_PLAIN_PATH);
    fields.linkname[..count].copy_from_slice(&link[..count]);
    header
}
