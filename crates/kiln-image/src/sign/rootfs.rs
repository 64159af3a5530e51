//! Records of root filesystems: which one this root has made of an image.
//!
//! A manifest names compressed layers; what is mounted is derived from them here. That derivation
//! is signed with the root's own key, so that no other file can be put in its place.

use std::fs;
use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::trust::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Envelope, Ring, SignError, Signing};
use crate::store::ImageFiles;

/// What the signed payload is.
const PAYLOAD_TYPE: &str = "application/vnd.kiln.rootfs.v1+json";

/// Which filesystem was made of which image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derivation {
    /// The image: its manifest's digest.
    pub manifest: Digest,
    /// The filesystem's digest.
    pub rootfs: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Derivation {
    /// What was made of an image of the store.
    pub fn of(files: &ImageFiles) -> Self {
        Self { manifest: files.digest, rootfs: files.erofs_digest, size: files.size_bytes }
    }

    /// The record in a file's bytes, and the key that has signed it.
    pub(crate) fn signed(bytes: &[u8]) -> Option<(Self, PublicKey)> {
        let (envelope, key) = Envelope::read_own(bytes, PAYLOAD_TYPE)?;
        Some((serde_json::from_slice(&envelope.payload).ok()?, key))
    }
}

/// A record that does not vouch for a filesystem.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// There is none.
    #[error("there is no record that this root has made the filesystem of {manifest}")]
    Absent {
        /// The image.
        manifest: Digest,
    },
    /// It can't be read.
    #[error("can't read {path}")]
    Io {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not one that this root has signed with a key that still counts.
    #[error("the record {path} of a filesystem was altered, or its key was revoked")]
    Altered {
        /// The record.
        path: PathBuf,
    },
    /// It names another filesystem.
    #[error("the record {path} is of filesystem {recorded}, and {found} stands in its place")]
    Other {
        /// The record.
        path: PathBuf,
        /// The filesystem that was made.
        recorded: Digest,
        /// The filesystem that is to be mounted.
        found: Digest,
    },
}

impl Signing {
    /// Signs that this root has made a filesystem of an image. Nothing if that is signed already.
    pub fn vouch_rootfs(&self, record: &Derivation) -> Result<(), SignError> {
        let key = self.current()?;
        if let Some(ring) = self.ring()?
            && self.check_rootfs(&ring, record).is_ok()
        {
            return Ok(());
        }
        let payload = serde_json::to_vec(record).expect("digests and numbers are JSON");
        let envelope = Envelope::sign(&key, PAYLOAD_TYPE, payload);
        self.write(&self.rootfs_path(&record.manifest), &envelope.to_bytes())
    }

    /// Whether the filesystem of an image is one that this root has made.
    pub fn check_rootfs(&self, ring: &Ring, found: &Derivation) -> Result<(), RootfsError> {
        self.check_rootfs_by(ring, found, Derivation::signed)
    }

    /// The same, with what reads a record's bytes: the record, and the key whose signature holds.
    pub(crate) fn check_rootfs_by(
        &self,
        ring: &Ring,
        found: &Derivation,
        signed: impl FnOnce(&[u8]) -> Option<(Derivation, PublicKey)>,
    ) -> Result<(), RootfsError> {
        let path = self.rootfs_path(&found.manifest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RootfsError::Absent { manifest: found.manifest });
            }
            Err(source) => return Err(RootfsError::Io { path, source }),
            Ok(bytes) => bytes,
        };
        match signed(&bytes).filter(|(_, key)| ring.is_own(key)) {
            Some((record, _)) if record == *found => Ok(()),
            Some((record, _)) if record.manifest == found.manifest => {
                let (recorded, found) = (record.rootfs, found.rootfs);
                Err(RootfsError::Other { path, recorded, found })
            }
            _ => Err(RootfsError::Altered { path }),
        }
    }

    /// Forgets which filesystem was made of an image.
    pub(crate) fn forget_rootfs(&self, manifest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.rootfs_path(manifest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_root_has_made_is_vouched_for() {
        let root = tempfile::tempdir().unwrap();
        let signing = Signing::of_root(root.path());
        let record = Derivation { manifest: Digest::of(b"m"), rootfs: Digest::of(b"r"), size: 9 };
        signing.vouch_rootfs(&record).unwrap();
        let ring = signing.ring().unwrap().unwrap();
        signing.check_rootfs(&ring, &record).unwrap();
        let other = Derivation { rootfs: Digest::of(b"x"), ..record.clone() };
        let error = signing.check_rootfs(&ring, &other).unwrap_err();
        assert!(matches!(error, RootfsError::Other { .. }));
        let other = Derivation { manifest: Digest::of(b"x"), ..record.clone() };
        let error = signing.check_rootfs(&ring, &other).unwrap_err();
        assert!(matches!(error, RootfsError::Absent { .. }));
        let path = signing.rootfs_path(&record.manifest);
        fs::copy(&path, signing.rootfs_path(&other.manifest)).unwrap();
        let error = signing.check_rootfs(&ring, &other).unwrap_err();
        assert!(matches!(error, RootfsError::Altered { .. }), "another image's");
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 4;
        fs::write(&path, bytes).unwrap();
        let error = signing.check_rootfs(&ring, &record).unwrap_err();
        assert!(matches!(error, RootfsError::Altered { .. }));
    }
}
