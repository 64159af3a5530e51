//! The cache of fetched files: `DIR/sha256/HEX`, and `DIR/partial/HEX` while they arrive.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use rustix::fs::{FlockOperation, flock};

use super::FetchError;
use crate::checksum;

/// Files by their SHA-256. What was fetched once is kept: a mirror drops old versions.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// The unfinished file of a download, held against other processes.
pub(super) struct Partial {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Cache {
    /// The cache in a directory, which is made where it is missing.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, FetchError> {
        let directory = directory.into();
        for part in ["sha256", "partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(|source| FetchError::Cache { path, source })?;
        }
        Ok(Self { directory })
    }

    /// Where a file with this checksum is kept.
    pub fn path(&self, sha256: &Digest) -> PathBuf {
        self.directory.join("sha256").join(sha256.hex())
    }

    /// A file that is there and still sums to its name. One that does not is taken away, so that
    /// it will be fetched again.
    pub fn verified(&self, sha256: &Digest) -> Result<Option<PathBuf>, FetchError> {
        let path = self.path(sha256);
        let failed = |source| FetchError::Cache { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if checksum::of_reader(file).map_err(failed)?.0 == *sha256 {
            return Ok(Some(path));
        }
        fs::remove_file(&path).map_err(failed)?;
        Ok(None)
    }

    /// Takes hold of the unfinished file of a download. Another process that holds it is waited
    /// for, since it fetches the same bytes.
    pub(super) fn partial(&self, sha256: &Digest, wait: Duration) -> Result<Partial, FetchError> {
        let path = self.directory.join("partial").join(sha256.hex());
        let failed = |source| FetchError::Cache { path: path.clone(), source };
        let started = Instant::now();
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).append(true).create(true).open(&path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The holder before may have moved the file away meanwhile.
                Ok(()) if is_at(&file, &path) => return Ok(Partial { file, path }),
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < wait => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(FetchError::Busy { path, waited_seconds: wait.as_secs() });
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    /// Gives a finished download its place.
    pub(super) fn publish(
        &self,
        partial: &Partial,
        sha256: &Digest,
    ) -> Result<PathBuf, FetchError> {
        let path = self.path(sha256);
        fs::rename(&partial.path, &path)
            .map_err(|source| FetchError::Cache { path: path.clone(), source })?;
        Ok(path)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}
