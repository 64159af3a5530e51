//! The files of a package.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tar::EntryType;

use crate::tree::{Content, Metadata};

/// How many entries a package may have; the largest of Debian has some 60,000.
const MAX_ENTRIES: usize = 1_000_000;
/// The longest name or header of an extension, in bytes. They are held in memory.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 512;

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
    let file = File::open(spool)?;
    let whole = file.metadata()?.len();
    check_extensions(&file, whole)?;
    let mut archive = tar::Archive::new(file);
    let mut entries = Vec::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        // Contents are passed over, so that one that is cut short would go unseen.
        if entry.raw_file_position().saturating_add(entry.size()) > whole {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if entries.len() == MAX_ENTRIES {
            return Err(DataError::Forbidden {
                what: "too many files, from",
                entry: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            });
        }
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
            EntryType::Symlink => {
                let target = link();
                if climbs_out(&path, &target) {
                    return Err(forbidden("a link that leads out of the image,"));
                }
                EntryKind::Symlink(target)
            }
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

/// Whether a relative link goes further up than the root. In an image it would stop there, but who
/// packs one means something else.
fn climbs_out(path: &[u8], target: &[u8]) -> bool {
    if target.first() == Some(&b'/') {
        return false;
    }
    let mut depth = path.split(|c| *c == b'/').count() - 1;
    for part in target.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// Refuses long names and extended headers beyond a bound, before anything reads them into memory.
/// What is no header is left to the reader of the archive to refuse.
fn check_extensions(file: &File, whole: u64) -> Result<(), DataError> {
    let mut at = 0;
    while at + BLOCK_BYTES <= whole {
        let mut block = [0; 512];
        file.read_exact_at(&mut block, at)?;
        let header = tar::Header::from_byte_slice(&block);
        let Ok(length) = header.entry_size() else { break };
        let kind = header.entry_type();
        let extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extension && length > MAX_EXTENSION_BYTES {
            return Err(DataError::Forbidden {
                what: "a name or header of",
                entry: format!("{length} bytes"),
            });
        }
        at = at
            .saturating_add(BLOCK_BYTES)
            .saturating_add(length.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES));
    }
    Ok(())
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
    use super::*;

    #[test]
    fn links_stay_inside() {
        for (path, target) in [("usr/lib/a", "../bin/a"), ("a", "b/../c"), ("a/b", "/etc/../..")] {
            assert!(!climbs_out(path.as_bytes(), target.as_bytes()), "{path} {target}");
        }
        for (path, target) in [("a", ".."), ("a/b", "../../etc"), ("a/b", "c/../../../x")] {
            assert!(climbs_out(path.as_bytes(), target.as_bytes()), "{path} {target}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean(b"./usr//bin/").unwrap(), b"usr/bin");
        assert_eq!(clean(b"./").unwrap(), b"");
        for path in [&b"/etc/passwd"[..], b"../x", b"./a/../../x", b"a/.."] {
            assert!(clean(path).is_none());
        }
    }
}
