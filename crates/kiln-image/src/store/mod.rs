//! The image store.
//!
//! ```text
//! ROOT/images/blobs/sha256/HEX   the blobs: layers, configurations, manifests, filesystems
//! ROOT/store/images/HEX.json     index: digest of a component -> digest of what was built for it
//! ROOT/store/images/HEX.NAME.json the same, for another image with the same recipe
//! ROOT/store/images/HEX.lock     held while that component is being built
//! ROOT/store/images/rootfs/HEX.json which filesystem instances of a manifest mount
//! ROOT/store/images/references/HEX.json which manifest a registry had under a reference
//! ROOT/cache/tmp/                what is being made
//! ```
//!
//! An image is an OCI manifest that names a configuration and layers, as any registry takes it; its
//! digest is the manifest's. The filesystem that instances mount follows from the layers: it is made
//! beside them, and can be made [again](ImageStore::derive). A blob is written elsewhere, synced, and
//! renamed to the name that is its checksum, so that under `ROOT/images` stands nothing that is not
//! whole and covered by its name.

mod blobs;
mod derive;
mod hold;
mod index;
mod oci;
mod publish;
mod references;
mod referrers;
mod rootfs;
mod verify;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::oci::layer::LayerError;
use crate::sandbox::Sandbox;

pub(crate) use blobs::to_json;
pub use derive::Laid;
pub(crate) use derive::Written;
pub use hold::Hold;
pub use index::Record;
pub use oci::{
    Annotations, CONFIG_MEDIA_TYPE, Config, Descriptor, INDEX_MEDIA_TYPE, ImageConfig, Index,
    LAYER_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Manifest, Platform, RootFs,
};
pub use publish::Unfinished;
pub use references::Known;
pub use rootfs::RootfsRecord;
pub use verify::Problem;

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
    /// A manifest that is not of an image.
    #[error("{digest} is not an image: {reason}")]
    Foreign {
        /// The manifest's digest.
        digest: Digest,
        /// What it is.
        reason: String,
    },
    /// The filesystem of an image is not known.
    #[error(
        "the filesystem of image {digest} has not been made yet; build or pull the image again"
    )]
    NotLaid {
        /// The image's digest.
        digest: Digest,
    },
    /// A layer can't be read.
    #[error("the layers of image {image} can't be put together")]
    Layer {
        /// The image's digest.
        image: Digest,
        /// Why.
        source: Box<LayerError>,
    },
    /// The filesystem can't be written.
    #[error("the filesystem can't be written")]
    Write(#[from] crate::erofs::WriteError),
    /// What an instance needs has no place in the filesystem.
    #[error("the places that an instance mounts on can't be made")]
    Places(#[from] crate::tree::TreeError),
    /// Another process makes the same image, or fetches the same blob, and does not come to an end.
    #[error(
        "another process has been building or fetching {name} for {waited_seconds} s; end it and try again"
    )]
    Busy {
        /// The image's name, or the blob.
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
    sandbox: Option<Arc<dyn Sandbox>>,
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
            sandbox: None,
        };
        let (rootfs, references) = (store.index.join("rootfs"), store.index.join("references"));
        for path in [&store.blobs, &rootfs, &references, &store.temporary] {
            fs::create_dir_all(path).map_err(at(path))?;
        }
        Ok(store)
    }

    /// The same store, in which programs of images that are being built run in `sandbox`.
    #[must_use]
    pub fn with_sandbox(mut self, sandbox: Arc<dyn Sandbox>) -> Self {
        self.sandbox = Some(sandbox);
        self
    }

    /// Where programs of images that are being built run.
    pub(crate) fn sandbox(&self) -> Option<&dyn Sandbox> {
        self.sandbox.as_deref()
    }

    /// The file of a blob, whether it is there or not.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// The image with this digest. Manifest and configuration are verified; of the filesystem just
    /// the length, see [`ImageStore::verify_rootfs`].
    pub fn get(&self, digest: &Digest) -> Result<ImageFiles, StoreError> {
        let manifest = self.manifest(digest)?;
        let config = self.config(digest, &manifest)?;
        let record = self.rootfs(digest)?.ok_or(StoreError::NotLaid { digest: *digest })?;
        let erofs = self.blob(&record.erofs);
        let absent = || StoreError::Absent { digest: record.erofs, path: self.blobs.clone() };
        let length = match fs::metadata(&erofs) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            Err(error) => return Err(at(&erofs)(error)),
        };
        if length != record.size {
            let file = File::open(&erofs).map_err(at(&erofs))?;
            let (found, _) = crate::checksum::of_reader(file).map_err(at(&erofs))?;
            return Err(StoreError::Altered { expected: record.erofs, found, path: erofs });
        }
        Ok(ImageFiles {
            digest: *digest,
            erofs,
            erofs_digest: record.erofs,
            size_bytes: record.size,
            config: config.config,
        })
    }

    /// The image with this digest, with all that an instance of it sees verified: each byte of the
    /// filesystem is read.
    pub fn verify_rootfs(&self, digest: &Digest) -> Result<ImageFiles, StoreError> {
        let image = self.get(digest)?;
        self.verify_blob(&image.erofs_digest)?;
        Ok(image)
    }

    /// The image with this digest, verified in full: each byte of its filesystem and of its layers
    /// is read.
    pub fn verify_image(&self, digest: &Digest) -> Result<ImageFiles, StoreError> {
        let image = self.verify_rootfs(digest)?;
        for blob in self.manifest(digest)?.blobs() {
            self.verify_blob(&blob.digest)?;
        }
        Ok(image)
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
}
