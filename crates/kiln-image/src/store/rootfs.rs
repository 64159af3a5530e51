//! Which filesystem instances of an image mount.
//!
//! It is no part of the manifest, since it follows from the layers. The record is what a start goes
//! by, so that nothing has to be put together then.

use std::fs;
use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{ImageStore, StoreError, at};

/// The version of what is made of the same layers: raised with each change that gives other bytes.
pub(super) const WRITER: u32 = 1;

/// The filesystem of one manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsRecord {
    /// The manifest's digest.
    pub manifest: Digest,
    /// The digest of the EROFS file, which is a blob.
    pub erofs: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Which version of the writer made it.
    pub writer: u32,
}

impl ImageStore {
    fn rootfs_path(&self, manifest: &Digest) -> PathBuf {
        self.index.join("rootfs").join(format!("{}.json", manifest.hex()))
    }

    /// The record of a manifest's filesystem. One that can't be read counts as none: the filesystem
    /// can be made again.
    pub fn rootfs(&self, manifest: &Digest) -> Result<Option<RootfsRecord>, StoreError> {
        let path = self.rootfs_path(manifest);
        let record = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<RootfsRecord>(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&path)(error)),
        };
        Ok(record.filter(|record| record.manifest == *manifest))
    }

    /// Keeps the record of a manifest's filesystem. Nothing if that is known.
    pub(crate) fn note_rootfs(&self, record: &RootfsRecord) -> Result<(), StoreError> {
        if self.rootfs(&record.manifest)?.as_ref() == Some(record) {
            return Ok(());
        }
        self.write_json(&self.rootfs_path(&record.manifest), record)
    }
}
