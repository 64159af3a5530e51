//! Reading `.deb` packages without running anything that is in them.
//!
//! A package is an `ar` archive of two tar archives (deb(5)): `control.tar.*` with the package's
//! description and its maintainer scripts, `data.tar.*` with its files. Packages come from
//! outside, so each length is bounded, and what has no place in an image is refused.

mod ar;
mod compression;
mod data;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use compression::decompress;

pub use data::{Entry, EntryKind};

/// The longest control archive that is read, in bytes; the largest of Debian is below 4 MB.
const MAX_CONTROL_BYTES: u64 = 64 << 20;
/// The longest data archive that is unpacked, in bytes; the largest of Debian is below 4 GB.
const MAX_DATA_BYTES: u64 = 16 << 30;
/// How many times its packed length an archive may unpack to, beyond the first
/// [`FREE_BYTES`]. Programs and data pack to a tenth at best, bombs to a thousandth.
const MAX_RATIO: u64 = 200;
/// What any archive may unpack to, in bytes.
const FREE_BYTES: u64 = 64 << 20;

/// A package that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// A file can't be read or written.
    #[error("can't read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a package.
    #[error("{path} is not a Debian package: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An archive inside is damaged.
    #[error("{member} in {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The archive inside.
        member: String,
        /// Why.
        source: io::Error,
    },
    /// An archive inside unpacks to more than it may.
    #[error("{member} in {path} unpacks to more than {limit_bytes} bytes and is refused")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The archive inside.
        member: String,
        /// The bound in bytes.
        limit_bytes: u64,
    },
    /// A file that no image may have.
    #[error("{path} contains {what} {entry}, which has no place in an image")]
    Forbidden {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// Its path in the package.
        entry: String,
    },
}

/// A package, unpacked as far as an image needs it.
#[derive(Debug)]
pub struct Deb {
    /// The package's description: one stanza of the control format.
    pub control: String,
    /// The other files beside it, by name: `postinst`, `conffiles`, `triggers`, ...
    pub control_files: BTreeMap<String, Vec<u8>>,
    /// The package's files in the order of its archive.
    pub entries: Vec<Entry>,
}

impl Deb {
    /// Reads a package. The contents of its files go, uncompressed, to a new file at `spool`, to
    /// which the entries refer; it must stay for as long as they do.
    pub fn read(path: &Path, spool: &Path) -> Result<Self, DebError> {
        let form = |reason: &str| DebError::Form { path: path.into(), reason: reason.into() };
        let file = File::open(path).map_err(|source| DebError::Io { path: path.into(), source })?;
        let mut control = None;
        let mut entries = None;
        for member in ar::members(&file).map_err(|reason| form(&reason))? {
            let reader = BufReader::with_capacity(128 * 1024, member.reader(&file));
            let source = Source { path, member: &member.name };
            let fair_bytes = FREE_BYTES.saturating_add(MAX_RATIO.saturating_mul(member.length));
            if let Some(suffix) = member.name.strip_prefix("control.tar") {
                control = Some(source.read_control(source.open(
                    reader,
                    suffix,
                    MAX_CONTROL_BYTES.min(fair_bytes),
                )?)?);
            } else if let Some(suffix) = member.name.strip_prefix("data.tar") {
                let reader = source.open(reader, suffix, MAX_DATA_BYTES.min(fair_bytes))?;
                entries = Some(source.read_data(reader, spool)?);
            }
        }
        let mut control_files: BTreeMap<String, Vec<u8>> =
            control.ok_or_else(|| form("it has no control archive"))?;
        let control =
            control_files.remove("control").ok_or_else(|| form("it has no description"))?;
        let control =
            String::from_utf8(control).map_err(|_| form("its description is not UTF-8 text"))?;
        let entries = entries.ok_or_else(|| form("it has no data archive"))?;
        Ok(Self { control, control_files, entries })
    }
}

/// An archive inside a package, for messages.
#[derive(Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
    member: &'a str,
}

impl Source<'_> {
    fn damaged(&self, source: io::Error) -> DebError {
        DebError::Damaged { path: self.path.into(), member: self.member.into(), source }
    }

    /// A reader of the uncompressed archive that ends one byte after the bound.
    fn open<'r>(
        &self,
        reader: impl Read + 'r,
        suffix: &str,
        limit_bytes: u64,
    ) -> Result<Bounded<'r>, DebError> {
        let reader = decompress(reader, suffix).map_err(|error| self.damaged(error))?;
        let reader = reader.ok_or_else(|| DebError::Form {
            path: self.path.into(),
            reason: format!("{} is compressed in a way that is not supported", self.member),
        })?;
        Ok(Bounded { reader: reader.take(limit_bytes + 1), limit_bytes })
    }

    /// Refuses an archive that has used up its bound.
    fn check_length(&self, bounded: &Bounded<'_>) -> Result<(), DebError> {
        if bounded.reader.limit() > 0 {
            return Ok(());
        }
        let limit_bytes = bounded.limit_bytes;
        Err(DebError::TooLarge { path: self.path.into(), member: self.member.into(), limit_bytes })
    }

    fn read_control(
        &self,
        mut bounded: Bounded<'_>,
    ) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(&mut bounded.reader);
        let read = archive.entries().and_then(|entries| {
            for entry in entries {
                let mut entry = entry?;
                if entry.header().entry_type().is_file() {
                    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    files.insert(name.trim_start_matches("./").to_owned(), bytes);
                }
            }
            Ok(())
        });
        self.check_length(&bounded)?;
        read.map_err(|error| self.damaged(error))?;
        Ok(files)
    }

    fn read_data(&self, mut bounded: Bounded<'_>, spool: &Path) -> Result<Vec<Entry>, DebError> {
        let failed = |source| DebError::Io { path: spool.into(), source };
        let mut file = File::create_new(spool).map_err(failed)?;
        // Read and written apart, so that a full disk is not taken for a damaged package.
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match bounded.reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => io::Write::write_all(&mut file, &buffer[..count]).map_err(failed)?,
                Err(error) => return Err(self.damaged(error)),
            }
        }
        self.check_length(&bounded)?;
        data::entries(spool).map_err(|error| match error {
            data::DataError::Damaged(source) => self.damaged(source),
            data::DataError::Forbidden { what, entry } => {
                DebError::Forbidden { path: self.path.into(), what, entry }
            }
        })
    }
}

struct Bounded<'a> {
    reader: io::Take<Box<dyn Read + 'a>>,
    limit_bytes: u64,
}
