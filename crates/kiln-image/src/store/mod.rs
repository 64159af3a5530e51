//! The image store.
//!
//! ```text
//! ROOT/images/blobs/sha256/HEX   the blobs: filesystems, configurations, manifests
//! ROOT/store/images/HEX.json     index: digest of a component -> digest of what was built for it
//! ROOT/store/images/HEX.NAME.json the same, for another image with the same recipe
//! ROOT/store/images/HEX.lock     held while that component is being built
//! ROOT/cache/tmp/                what is being made
//! ```
//!
//! An image is an OCI manifest that names a configuration and one filesystem; its digest is the
//! manifest's. A blob is written elsewhere, synced, and renamed to the name that is its checksum,
//! so that under `ROOT/images` stands nothing that is not whole and covered by its name.

mod hold;
mod oci;
mod publish;
mod referrers;
mod verify;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use hold::Hold;
pub use oci::{Config, Descriptor, EROFS_MEDIA_TYPE, ImageConfig, Manifest, RootFs};
pub use publish::Unfinished;
pub use verify::Problem;

/// The longest manifest or configuration that is read, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// How long another process that builds the same image is waited for.
const BUILD_WAIT: Duration = Duration::from_secs(30 * 60);

/// An image store that can't be used, or an image that is not right.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file can't be read or written.
    #[error("can't read or write {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such image.
    #[error("image {digest} is not in the store at {path}; build it, or pull it")]
    Absent {
        /// The image's or blob's digest.
        digest: Digest,
        /// The store's directory.
        path: PathBuf,
    },
    /// A blob is not what its name says.
    #[error(
        "blob {expected} has the checksum {found}: it was altered; move {path} away and build the image again"
    )]
    Altered {
        /// What its name says.
        expected: Digest,
        /// What it sums to.
        found: Digest,
        /// The file.
        path: PathBuf,
    },
    /// A manifest or configuration can't be read.
    #[error("blob {digest} is not a {what} that this program can use")]
    Document {
        /// The blob.
        digest: Digest,
        /// What was expected.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A manifest that is not of an image of Kiln.
    #[error("image {digest} has no EROFS filesystem; it was not made by kiln")]
    Foreign {
        /// The image's digest.
        digest: Digest,
    },
    /// Another process builds the same image and does not come to an end.
    #[error(
        "another process has been building image {name} for {waited_seconds} s; end it and try again"
    )]
    Busy {
        /// The image's name.
        name: String,
        /// How long was waited.
        waited_seconds: u64,
    },
}

/// Attaches a path to an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { path, source }
}

/// The images below one root directory.
#[derive(Clone, Debug)]
pub struct ImageStore {
    blobs: PathBuf,
    index: PathBuf,
    temporary: PathBuf,
}

/// What was built for one component, as the index keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The image's name when it was built.
    pub name: String,
    /// The digest of the image as a component: of its recipe and locked inputs.
    pub recipe: Digest,
    /// The digest of what was built: the manifest's.
    pub digest: Digest,
    /// The length of the filesystem in bytes.
    pub size: u64,
    /// Which version of the builder made it.
    pub builder: u32,
}

/// An image that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFiles {
    /// The image's digest.
    pub digest: Digest,
    /// The filesystem, to be mounted as it is.
    pub erofs: PathBuf,
    /// The digest of the filesystem.
    pub erofs_digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// How the program in it is started.
    pub config: ImageConfig,
}

/// The right to build one component, held against other processes until it is dropped.
#[derive(Debug)]
pub struct BuildLock {
    _file: File,
    _hold: Hold,
}

impl ImageStore {
    /// The store below the root directory `root`, whose directories are made where they miss.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            blobs: root.join("images/blobs/sha256"),
            index: root.join("store/images"),
            temporary: root.join("cache/tmp"),
        };
        for path in [&store.blobs, &store.index, &store.temporary] {
            fs::create_dir_all(path).map_err(at(path))?;
        }
        Ok(store)
    }

    /// The file of a blob, whether it is there or not.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// The image with this digest. Manifest and configuration are verified; of the filesystem just
    /// the length, see [`ImageStore::verify_image`].
    pub fn get(&self, digest: &Digest) -> Result<ImageFiles, StoreError> {
        let manifest: Manifest = self.document(digest, "manifest")?;
        let Some(layer) = manifest.filesystem() else {
            return Err(StoreError::Foreign { digest: *digest });
        };
        let config: Config = self.document(&manifest.config.digest, "configuration")?;
        let erofs = self.blob(&layer.digest);
        let absent = || StoreError::Absent { digest: layer.digest, path: self.blobs.clone() };
        let length = match fs::metadata(&erofs) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            Err(error) => return Err(at(&erofs)(error)),
        };
        if length != layer.size {
            let file = File::open(&erofs).map_err(at(&erofs))?;
            let (found, _) = crate::checksum::of_reader(file).map_err(at(&erofs))?;
            return Err(StoreError::Altered { expected: layer.digest, found, path: erofs });
        }
        Ok(ImageFiles {
            digest: *digest,
            erofs,
            erofs_digest: layer.digest,
            size_bytes: layer.size,
            config: config.config,
        })
    }

    /// The image with this digest, verified in full: each byte of the filesystem is read.
    pub fn verify_image(&self, digest: &Digest) -> Result<ImageFiles, StoreError> {
        let image = self.get(digest)?;
        self.verify_blob(&image.erofs_digest)?;
        Ok(image)
    }

    /// What was built for a component, if it is known and still in the store.
    pub fn find(&self, recipe: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.index.join(format!("{}.json", recipe.hex()));
        let record = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Record>(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&path)(error)),
        };
        // A record that can't be read, or whose image has gone, only means to build again.
        Ok(record.filter(|record| record.recipe == *recipe && self.get(&record.digest).is_ok()))
    }

    /// All images that were built here, by name and digest.
    pub fn list(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.index).map_err(at(&self.index))? {
            let path = entry.map_err(at(&self.index))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read(&path).map_err(at(&path))?;
                records.extend(serde_json::from_slice::<Record>(&text));
            }
        }
        records.sort_by(|a: &Record, b| (&a.name, a.recipe).cmp(&(&b.name, b.recipe)));
        Ok(records)
    }

    /// Notes what was built for a component.
    pub(crate) fn note(&self, record: &Record) -> Result<(), StoreError> {
        self.write_record(&format!("{}.json", record.recipe.hex()), record)
    }

    /// Notes that an image of another name has the same recipe. Nothing if that is known.
    pub(crate) fn note_other_name(&self, record: &Record) -> Result<(), StoreError> {
        let name = format!("{}.{}.json", record.recipe.hex(), record.name);
        let known = fs::read(self.index.join(&name)).ok();
        let known = known.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        if known.as_ref() == Some(record) { Ok(()) } else { self.write_record(&name, record) }
    }

    fn write_record(&self, file: &str, record: &Record) -> Result<(), StoreError> {
        let path = self.index.join(file);
        let text = serde_json::to_vec_pretty(record).map_err(|error| at(&path)(error.into()))?;
        let mut unfinished = self.unfinished()?;
        io::Write::write_all(&mut unfinished, &text).map_err(at(&path))?;
        unfinished.rename_to(&path)
    }

    /// Waits until no other process builds the component and takes the right to do so.
    pub(crate) fn lock_build(&self, recipe: &Digest, name: &str) -> Result<BuildLock, StoreError> {
        let path = self.index.join(format!("{}.lock", recipe.hex()));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(at(&path))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(BuildLock { _file: file, _hold: self.hold()? }),
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < BUILD_WAIT => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let waited_seconds = started.elapsed().as_secs();
                    return Err(StoreError::Busy { name: name.to_owned(), waited_seconds });
                }
                Err(error) => return Err(at(&path)(error.into())),
            }
        }
    }

    /// Reads and verifies a manifest or configuration.
    fn document<T: serde::de::DeserializeOwned>(
        &self,
        digest: &Digest,
        what: &'static str,
    ) -> Result<T, StoreError> {
        let path = self.blob(digest);
        let absent = || StoreError::Absent { digest: *digest, path: self.blobs.clone() };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            Err(error) => return Err(at(&path)(error)),
        };
        let mut text = Vec::new();
        let mut bounded = io::Read::take(file, MAX_DOCUMENT_BYTES);
        io::Read::read_to_end(&mut bounded, &mut text).map_err(at(&path))?;
        let found = Digest::of(&text);
        if found != *digest {
            return Err(StoreError::Altered { expected: *digest, found, path });
        }
        let document = serde_json::from_slice(&text);
        document.map_err(|source| StoreError::Document { digest: *digest, what, source })
    }

    fn verify_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob(digest);
        let file = File::open(&path).map_err(at(&path))?;
        let (found, _) = crate::checksum::of_reader(file).map_err(at(&path))?;
        if found == *digest {
            return Ok(());
        }
        Err(StoreError::Altered { expected: *digest, found, path })
    }
}
