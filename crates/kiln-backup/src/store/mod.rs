//! The seam to a place that keeps files by name.

mod directory;
pub mod s3;
mod sign;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use sha2::{Digest as _, Sha256};

pub use directory::Directory;
pub use s3::{Access, S3};

/// Bytes that are moved at a time.
const PIECE: usize = 64 << 10;

/// A place that keeps files by name. Names are relative paths with `/`.
///
/// What it says is not believed: whoever puts something there that counts reads it again.
pub trait Store: fmt::Debug + Send + Sync {
    /// Where it is, as a person would write it; holds no secret.
    fn place(&self) -> String;

    /// Puts the whole of a file there, in place of what has that name.
    fn put(&self, name: &str, content: &Content) -> Result<(), StoreError>;

    /// What has a name.
    fn get(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError>;

    /// All whose names begin with `prefix`, in the order of their names.
    fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError>;

    /// Takes something away. Succeeds where there is nothing.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// Something that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was put there.
    pub modified: Timestamp,
}

/// Why a store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is nothing of that name.
    #[error("there is no {name} in {place}")]
    Absent {
        /// The name.
        name: String,
        /// The store.
        place: String,
    },
    /// It cannot be reached or used.
    #[error("{what} in {place}")]
    Io {
        /// What was attempted.
        what: String,
        /// The store.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It answers that it will not.
    #[error("{what} in {place}: it answers {answer}")]
    Refused {
        /// What was attempted.
        what: String,
        /// The store.
        place: String,
        /// Its answer, in words.
        answer: String,
    },
    /// What it gives is not what was put there.
    #[error("{name} in {place} is not what was put there: {found}")]
    Altered {
        /// The name.
        name: String,
        /// The store.
        place: String,
        /// What is wrong with it.
        found: String,
    },
}

impl StoreError {
    /// Whether there is nothing of that name.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// A file that is to be stored, with its length and checksum.
#[derive(Debug)]
pub struct Content {
    file: File,
    /// Its length in bytes.
    pub size: u64,
    /// The SHA-256 of all its bytes.
    pub digest: Digest,
}

impl Content {
    /// A file on disk; it is read once.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_open(File::open(path)?)
    }

    /// A file that is open; it is read once.
    pub fn of_open(mut file: File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let (size, digest) = measure(&mut file)?;
        Ok(Self { file, size, digest })
    }

    /// Bytes, in a file without a name below `scratch`.
    pub fn of_bytes(scratch: &Path, bytes: &[u8]) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};

        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(scratch, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(bytes)?;
        Ok(Self { file, size: bytes.len() as u64, digest: Digest::of(bytes) })
    }

    /// A reader of all its bytes; one at a time.
    pub fn reader(&self) -> io::Result<impl Read + use<>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

/// Length and SHA-256 of all that is read.
pub fn measure(reader: &mut dyn Read) -> io::Result<(u64, Digest)> {
    let (mut hash, mut size, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let count = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&piece[..count]);
        size += count as u64;
    }
    Ok((size, Digest::from_bytes(hash.finalize().into())))
}

/// Puts something there and reads it again: when this returns, it is there.
pub fn put_for_sure(store: &dyn Store, name: &str, content: &Content) -> Result<(), StoreError> {
    store.put(name, content)?;
    let altered =
        |found: String| StoreError::Altered { name: name.to_owned(), place: store.place(), found };
    let mut reader = match store.get(name) {
        Err(StoreError::Absent { .. }) => {
            return Err(altered("it said that it has it, and has not".to_owned()));
        }
        reader => reader?,
    };
    let found = measure(&mut *reader).map_err(|source| StoreError::Io {
        what: format!("read {name} again"),
        place: store.place(),
        source,
    })?;
    if found == (content.size, content.digest) {
        return Ok(());
    }
    let (size, digest) = found;
    Err(altered(format!("{size} bytes, {digest}, not {} bytes, {}", content.size, content.digest)))
}

/// All of a small thing that is stored, at most `most` bytes.
pub fn read(store: &dyn Store, name: &str, most: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let mut reader = store.get(name)?.take(most + 1);
    reader.read_to_end(&mut bytes).map_err(|source| StoreError::Io {
        what: format!("read {name}"),
        place: store.place(),
        source,
    })?;
    if bytes.len() as u64 > most {
        let found = format!("it is longer than {most} bytes");
        return Err(StoreError::Altered { name: name.to_owned(), place: store.place(), found });
    }
    Ok(bytes)
}
