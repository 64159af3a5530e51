//! The files of a package.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tar::EntryType;

use crate::tree::{Content, Metadata};

/// One file, directory or link of a package.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it goes, from the root, without a slash at either end; empty for the root itself.
    pub path: Vec<u8>,
    /// Mode, owner and time as the package gives them, without set-id bits on files: no program
    /// gains rights inside an instance.
    pub metadata: Metadata,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// Another name of a file that came before, by its path.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

pub(super) enum DataError {
    Damaged(io::Error),
    Forbidden { what: &'static str, entry: String },
}

impl From<io::Error> for DataError {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error)
    }
}

/// Lists the entries of an uncompressed tar archive, whose contents stay where they are.
pub(super) fn entries(spool: &Path) -> Result<Vec<Entry>, DataError> {
    let shared: Arc<Path> = spool.into();
    let mut archive = tar::Archive::new(File::open(spool)?);
    let mut entries = Vec::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let header = entry.header();
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let forbidden = |what| DataError::Forbidden { what, entry: shown.clone() };
        let path = clean(&entry.path_bytes()).ok_or_else(|| forbidden("the path"))?;
        let link = || entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        let mut mode_mask = 0o7777;
        let kind = match header.entry_type() {
            EntryType::Directory => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                mode_mask = 0o1777;
                EntryKind::File(Content::Stored {
                    path: Arc::clone(&shared),
                    offset: entry.raw_file_position(),
                    length: entry.size(),
                })
            }
            EntryType::Symlink => EntryKind::Symlink(link()),
            EntryType::Link => {
                EntryKind::HardLink(clean(&link()).ok_or_else(|| forbidden("the link"))?)
            }
            EntryType::Fifo => EntryKind::Fifo,
            EntryType::Block | EntryType::Char => return Err(forbidden("the device")),
            _ => return Err(forbidden("the special file")),
        };
        let number = |value: io::Result<u64>| {
            value.and_then(|value| u32::try_from(value).map_err(io::Error::other))
        };
        let mode = u16::try_from(header.mode()? & mode_mask).map_err(io::Error::other)?;
        let mtime = i64::try_from(header.mtime()?).map_err(io::Error::other)?;
        let metadata = Metadata::new(mode)
            .owned_by(number(header.uid())?, number(header.gid())?)
            .modified_at(mtime);
        entries.push(Entry { path, metadata, kind });
    }
    Ok(entries)
}

/// A path from the root, without `.` and empty parts; none if it is absolute or has `..`.
fn clean(path: &[u8]) -> Option<Vec<u8>> {
    if path.first() == Some(&b'/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean(b"./usr//bin/").unwrap(), b"usr/bin");
        assert_eq!(clean(b"./").unwrap(), b"");
        for path in [&b"/etc/passwd"[..], b"../x", b"./a/../../x", b"a/.."] {
            assert!(clean(path).is_none());
        }
    }
}
