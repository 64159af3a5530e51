//! The log of changes in a store: each file compressed, sealed where that is wanted, and with its own
//! name and checksum in it, so that one that is altered, cut off or under another's name is found.
//!
//! A file is a gzip member (RFC 1952) whose header holds the name, when it was written last, and as the
//! comment the SHA-256 of what is in it: `gunzip` and `age -d` are all that is needed to read it.

use std::io::{self, Read, Write as _};
use std::path::Path;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;

use crate::age::{Identity, Opener, Sealer};
use crate::segment::{LogFile, SIZE};
use crate::store::{self, Content, Store, StoreError};

/// The longest stored file of the log, in bytes: a segment that does not compress, sealed.
const LONGEST: u64 = SIZE + (1 << 20);
/// What the name of a compressed file ends with.
pub const GZIP: &str = ".gz";
/// What the name of a sealed file ends with.
pub const AGE: &str = ".age";

/// Where the log of one line of a database's data is, and how it is kept.
#[derive(Debug, Clone, Copy)]
pub struct Archive<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// The line.
    pub line: &'a str,
    /// For whom it is sealed.
    pub seal: Option<&'a Identity>,
    /// A directory for files without a name.
    pub scratch: &'a Path,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shipped {
    /// It is there now.
    Stored,
    /// It was there before, with the same content.
    Known,
}

/// A file of the log as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its content.
    pub content: Vec<u8>,
    /// When it was written last, by the clock of the machine that did.
    pub written: Timestamp,
}

/// Where below a line a file of the log is, without what its form adds.
pub fn path(line: &str, file: &LogFile) -> String {
    let name = file.to_string();
    match file {
        LogFile::History(_) => format!("{line}/wals/{name}"),
        // As Barman lays it out: a directory for the segments of one timeline and log.
        _ => format!("{line}/wals/{}/{name}", &name[..16]),
    }
}

impl Archive<'_> {
    /// The name under which a file is stored in the form that is wanted now.
    pub fn name(&self, file: &LogFile) -> String {
        let sealed = if self.seal.is_some() { AGE } else { "" };
        format!("{}{GZIP}{sealed}", path(self.line, file))
    }

    /// Has a file in the store: puts it there, unless it is. One of that name with other content is
    /// left as it is, and is an error.
    pub fn ship(
        &self,
        file: &LogFile,
        content: &[u8],
        written: Timestamp,
    ) -> Result<Shipped, StoreError> {
        let name = self.name(file);
        match self.read(file) {
            Ok(found) if found.content == content => return Ok(Shipped::Known),
            Ok(found) => {
                let (there, own) = (Digest::of(&found.content), Digest::of(content));
                let found = format!("it holds {there}, and {own} is to be put there");
                return Err(StoreError::Altered { name, place: self.store.place(), found });
            }
            Err(StoreError::Absent { .. }) => {}
            Err(error) => return Err(error),
        }
        let io = |source| StoreError::Io {
            what: format!("prepare {name} to be put"),
            place: self.store.place(),
            source,
        };
        let bytes = encode(file, content, written, self.seal).map_err(io)?;
        let content = Content::of_bytes(self.scratch, &bytes).map_err(io)?;
        store::put_for_sure(self.store, &name, &content)?;
        Ok(Shipped::Stored)
    }

    /// A file, checked: what is in it is what was put there under this name.
    pub fn read(&self, file: &LogFile) -> Result<Kept, StoreError> {
        let plain = format!("{}{GZIP}", path(self.line, file));
        let sealed = format!("{plain}{AGE}");
        let names = if self.seal.is_some() { [sealed, plain] } else { [plain, sealed] };
        let mut absent = None;
        for name in names {
            match store::read(self.store, &name, LONGEST) {
                Ok(bytes) => {
                    return decode(file, &bytes, self.seal).map_err(|error| StoreError::Altered {
                        name,
                        place: self.store.place(),
                        found: error.to_string(),
                    });
                }
                Err(error) if error.is_absent() => absent = absent.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(absent.unwrap_or_else(|| StoreError::Absent {
            name: path(self.line, file),
            place: self.store.place(),
        }))
    }
}

fn encode(
    file: &LogFile,
    content: &[u8],
    written: Timestamp,
    seal: Option<&Identity>,
) -> io::Result<Vec<u8>> {
    let seconds = u32::try_from(written.0.div_ceil(1_000)).unwrap_or(0);
    let head = GzBuilder::new()
        .filename(file.to_string())
        .comment(Digest::of(content).hex())
        .mtime(seconds);
    // Most of a segment is often empty, and speed counts: it is sent while others wait.
    let mut zip = head.write(Vec::new(), Compression::new(3));
    zip.write_all(content)?;
    let zipped = zip.finish()?;
    match seal {
        None => Ok(zipped),
        Some(identity) => {
            let mut sealer = Sealer::new(identity, Vec::with_capacity(zipped.len() + 1024))?;
            sealer.write_all(&zipped)?;
            sealer.finish()
        }
    }
}

/// Opens what is sealed, if it is.
pub fn opened<'a>(
    mut bytes: Box<dyn Read + Send + 'a>,
    sealed: bool,
    seal: Option<&Identity>,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    if !sealed {
        return Ok(bytes);
    }
    if let Some(identity) = seal {
        return Ok(Box::new(Opener::new(identity, bytes)?));
    }
    // What can't be read at all is told as such.
    bytes.read_exact(&mut [0])?;
    Err(io::Error::other("it is encrypted, and `encrypt` names no identity"))
}

fn decode(file: &LogFile, bytes: &[u8], seal: Option<&Identity>) -> io::Result<Kept> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let sealed = bytes.starts_with(b"age-encryption.org/");
    let mut zipped = Vec::new();
    opened(Box::new(bytes), sealed, seal)?.read_to_end(&mut zipped)?;
    let mut zip = GzDecoder::new(zipped.as_slice());
    let mut content = Vec::new();
    (&mut zip).take(2 * SIZE).read_to_end(&mut content)?;
    let Some(head) = zip.header() else { return Err(invalid("it is no gzip".to_owned())) };
    let name = head.filename().map(String::from_utf8_lossy).unwrap_or_default();
    if *name != file.to_string() {
        return Err(invalid(format!("it is {name}")));
    }
    let digest = head.comment().map(String::from_utf8_lossy).unwrap_or_default();
    let found = Digest::of(&content).hex();
    if *digest != found {
        return Err(invalid(format!("its content is {found}, not {digest}")));
    }
    let written = Timestamp(u64::from(head.mtime()) * 1_000);
    let mut crc = flate2::Crc::new();
    crc.update(&content);
    let end = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    if !zipped.ends_with(&end) {
        return Err(invalid("there is something behind its end".to_owned()));
    }
    Ok(Kept { content, written })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Directory;

    const IDENTITY: &str =
        "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6";

    fn file(text: &str) -> LogFile {
        text.parse().unwrap()
    }

    #[test]
    fn a_file_is_shipped_once_and_read_as_it_was() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Directory::new(scratch.path().join("store"));
        let identity: Identity = IDENTITY.parse().unwrap();
        for seal in [None, Some(&identity)] {
            let line = if seal.is_some() { "1" } else { "2" };
            let archive = Archive { store: &store, line, seal, scratch: scratch.path() };
            let one = file("000000010000000000000001");
            let at = Timestamp(1_700_000_000_000);
            assert!(archive.read(&one).unwrap_err().is_absent());
            assert_eq!(archive.ship(&one, b"content", at).unwrap(), Shipped::Stored);
            assert_eq!(archive.ship(&one, b"content", at).unwrap(), Shipped::Known);
            let refused = archive.ship(&one, b"other", at).unwrap_err().to_string();
            assert!(refused.contains("000000010000000000000001"), "{refused}");
            let kept = Kept { content: b"content".to_vec(), written: at };
            assert_eq!(archive.read(&one).unwrap(), kept);
            let history = file("00000002.history");
            archive.ship(&history, b"1\t0/3000000\tno recovery target specified\n", at).unwrap();
            assert!(
                archive.name(&history).starts_with(&format!("{line}/wals/00000002.history.gz"))
            );
        }
    }

    #[test]
    fn what_is_damaged_swapped_or_cut_off_is_told_with_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("store");
        let store = Directory::new(&root);
        let identity: Identity = IDENTITY.parse().unwrap();
        for seal in [None, Some(&identity)] {
            let line = if seal.is_some() { "1" } else { "2" };
            let archive = Archive { store: &store, line, seal, scratch: scratch.path() };
            let files = ["000000010000000000000001", "000000010000000000000002"].map(file);
            for file in &files {
                let content: Vec<u8> = file.to_string().repeat(1000).into_bytes();
                archive.ship(file, &content, Timestamp(0)).unwrap();
            }
            let [one, two] = files.each_ref().map(|file| root.join(archive.name(file)));
            let sound = std::fs::read(&one).unwrap();
            let mut found = 0;
            std::fs::copy(&two, &one).unwrap();
            let told = archive.read(&files[0]).unwrap_err().to_string();
            assert!(told.contains("it is 000000010000000000000002"), "{told}");
            for at in (0..sound.len()).filter(|at| !(4..10).contains(at) || seal.is_some()) {
                let mut bytes = sound.clone();
                bytes[at] ^= 0x40;
                std::fs::write(&one, &bytes).unwrap();
                let read = archive.read(&files[0]);
                // A bit may be of no matter, such as one of a repetition; then all is as it was.
                let same =
                    |kept: &Kept| kept.content == files[0].to_string().repeat(1000).as_bytes();
                assert!(read.as_ref().map_or(true, same), "{at} of {}", sound.len());
                found += usize::from(read.is_err());
            }
            assert!(found > sound.len() / 2, "{found} of {}", sound.len());
            for length in [0, 1, sound.len() / 2, sound.len() - 1] {
                std::fs::write(&one, &sound[..length]).unwrap();
                let told = archive.read(&files[0]).unwrap_err().to_string();
                assert!(told.contains("000000010000000000000001"), "{told}");
            }
            std::fs::write(&one, [&sound[..], b"more"].concat()).unwrap();
            assert!(archive.read(&files[0]).is_err());
        }
    }
}
