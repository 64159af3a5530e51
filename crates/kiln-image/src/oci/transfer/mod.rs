//! Images between the store and a registry.

mod import;
mod pull;
mod push;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use kiln_model::digest::Digest;

use super::layer::LayerError;
use super::layout::LayoutError;
use super::registry::RegistryError;
use crate::progress::{Event, Progress};
use crate::store::{Descriptor, StoreError};

pub use pull::Pulled;
pub use push::Pushed;

/// How many blobs go or come at a time: enough to hide latency, few enough to be polite.
const PARALLEL: usize = 4;

/// An image that can't be brought to or from a registry.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A reference names another image by its digest.
    #[error("{reference} names the digest of another image; the image is {image}")]
    OtherDigest {
        /// The reference.
        reference: String,
        /// The image.
        image: Digest,
    },
    /// What is to come does not fit on the disk.
    #[error(
        "the image does not fit on the disk: {} of it are not here yet, and the disk of {} has {} free",
        mib(*needed), path.display(), mib(*free)
    )]
    NoRoom {
        /// Where it would come to.
        path: PathBuf,
        /// The length of what is to come, in bytes.
        needed: u64,
        /// How many bytes are free.
        free: u64,
    },
    /// The image runs elsewhere.
    #[error("{reference} is an image for {found}, and this machine is {wanted}")]
    Platform {
        /// The reference.
        reference: String,
        /// What it is for.
        found: String,
        /// What this machine is.
        wanted: String,
    },
}

/// Bytes as a person reads them.
fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

/// Counts what has been moved, and tells of it.
struct Meter<'a> {
    progress: &'a dyn Progress,
    upload: bool,
    bytes: AtomicI64,
    blobs: AtomicUsize,
    total_bytes: u64,
    total: usize,
}

impl<'a> Meter<'a> {
    fn new(progress: &'a dyn Progress, upload: bool, blobs: &[Descriptor]) -> Self {
        let total_bytes = blobs.iter().map(|blob| blob.size).sum();
        let (bytes, done) = (AtomicI64::new(0), AtomicUsize::new(0));
        Self { progress, upload, bytes, blobs: done, total_bytes, total: blobs.len() }
    }

    /// So many more bytes; fewer where something has to be done again.
    fn moved(&self, more: i64) {
        let bytes = self.bytes.fetch_add(more, Ordering::Relaxed) + more;
        let done_bytes = u64::try_from(bytes).unwrap_or(0);
        let (total_bytes, total) = (self.total_bytes, self.total);
        let done = self.blobs.load(Ordering::Relaxed);
        self.progress.event(if self.upload {
            Event::Upload { done_bytes, total_bytes, done, total }
        } else {
            Event::Download { done_bytes, total_bytes, done, total }
        });
    }

    fn blob_done(&self) {
        self.blobs.fetch_add(1, Ordering::Relaxed);
        self.moved(0);
    }
}
