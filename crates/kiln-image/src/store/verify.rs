//! Verifying all that the store holds. Nothing is repaired or removed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;

use super::{ImageStore, StoreError, at};

/// Something in the store that is not as it must be.
#[derive(Debug)]
pub enum Problem {
    /// A file that is no blob.
    Stray(PathBuf),
    /// A blob or an image that is not right.
    Wrong {
        /// The image's name, where it is one.
        image: Option<String>,
        /// What is wrong.
        error: StoreError,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stray(path) => {
                write!(
                    f,
                    "{} is not a blob and does not belong there; move it away",
                    path.display()
                )
            }
            Self::Wrong { image: Some(image), error } => write!(f, "image {image}: {error}"),
            Self::Wrong { image: None, error } => write!(f, "{error}"),
        }
    }
}

impl ImageStore {
    /// Reads every file below `ROOT/images` and every image that the index knows, and gives all
    /// that is wrong, in a stable order.
    pub fn verify(&self) -> Result<Vec<Problem>, StoreError> {
        let mut problems = Vec::new();
        // `blobs/sha256` stands two levels below the store's top directory.
        let top = self.blobs.ancestors().nth(2).unwrap_or(&self.blobs);
        self.verify_below(top, &mut problems)?;
        for record in self.list()? {
            if let Err(error) = self.get(&record.digest).and_then(|_| self.complete(&record.digest))
            {
                problems.push(Problem::Wrong { image: Some(record.name), error });
            }
        }
        Ok(problems)
    }

    /// Whether all that an image's manifest names is there.
    fn complete(&self, image: &Digest) -> Result<(), StoreError> {
        let manifest = self.manifest(image)?;
        let missing = manifest.blobs().into_iter().find(|blob| !self.has(blob));
        let absent = |blob: &super::Descriptor| StoreError::Absent {
            digest: blob.digest,
            path: self.blobs.clone(),
        };
        missing.map(absent).map_or(Ok(()), Err)
    }

    fn verify_below(
        &self,
        directory: &Path,
        problems: &mut Vec<Problem>,
    ) -> Result<(), StoreError> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).map_err(at(directory))? {
            paths.push(entry.map_err(at(directory))?.path());
        }
        paths.sort();
        for path in paths {
            let metadata = fs::symlink_metadata(&path).map_err(at(&path))?;
            if metadata.is_dir() && self.blobs.starts_with(&path) {
                self.verify_below(&path, problems)?;
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match format!("sha256:{name}").parse::<Digest>() {
                Ok(digest) if metadata.is_file() && path == self.blob(&digest) => {
                    if let Err(error) = self.verify_blob(&digest) {
                        problems.push(Problem::Wrong { image: None, error });
                    }
                }
                _ => problems.push(Problem::Stray(path)),
            }
        }
        Ok(())
    }
}
