//! Records of root filesystems: which one this root has made of an image.
//!
//! A manifest names compressed layers; what is mounted is derived from them here. That derivation
//! is signed with the root's own key, so that no other file can be put in its place. What the file's
//! blocks measure is signed with it: a kernel that measures the file itself can then be believed
//! without a byte being read.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::trust::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Envelope, Ring, SignError, Signing};
use crate::store::{ImageFiles, StoreError};
use crate::verity;

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
    /// What its blocks measure; nothing where that was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
}

/// What the kernel makes of a file's blocks: SHA-256 over blocks of 4096 bytes, without a salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// What fs-verity measures of the file.
    pub fs_verity: Digest,
    /// The root of its hash tree, as dm-verity is told it.
    pub root: Digest,
}

impl Derivation {
    /// What was made of an image of the store. No byte of it is read.
    pub fn of(files: &ImageFiles) -> Self {
        let (manifest, rootfs) = (files.digest, files.erofs_digest);
        Self { manifest, rootfs, size: files.size_bytes, blocks: None }
    }

    /// The same with what its blocks measure, for which the file is read once, in full. The file's
    /// own checksum is taken of the very bytes that are measured.
    pub fn measured(files: &ImageFiles) -> Result<Self, StoreError> {
        let path = || files.erofs.clone();
        let found = File::open(&files.erofs).and_then(verity::of_reader);
        let found = found.map_err(|source| StoreError::Io { path: path(), source })?;
        if (found.digest, found.size_bytes) != (files.erofs_digest, files.size_bytes) {
            let (expected, found) = (files.erofs_digest, found.digest);
            return Err(StoreError::Altered { expected, found, path: path() });
        }
        let blocks = Blocks { fs_verity: found.fs_verity, root: found.root };
        Ok(Self { blocks: Some(blocks), ..Self::of(files) })
    }

    /// Whether both name the same filesystem of the same image.
    fn names_what(&self, other: &Self) -> bool {
        (self.manifest, self.rootfs, self.size) == (other.manifest, other.rootfs, other.size)
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
    /// Signs that this root has made a filesystem of an image, in place of what was signed before.
    pub fn vouch_rootfs(&self, record: &Derivation) -> Result<(), SignError> {
        let key = self.current()?;
        let payload = serde_json::to_vec(record).expect("digests and numbers are JSON");
        let envelope = Envelope::sign(&key, PAYLOAD_TYPE, payload);
        self.write(&self.rootfs_path(&record.manifest), &envelope.to_bytes())
    }

    /// Whether the filesystem of an image is one that this root has made, and what its blocks
    /// measure, where that is signed too.
    pub fn check_rootfs(
        &self,
        ring: &Ring,
        found: &Derivation,
    ) -> Result<Option<Blocks>, RootfsError> {
        self.check_rootfs_by(ring, found, Derivation::signed)
    }

    /// The same, with what reads a record's bytes: the record, and the key whose signature holds.
    pub(crate) fn check_rootfs_by(
        &self,
        ring: &Ring,
        found: &Derivation,
        signed: impl FnOnce(&[u8]) -> Option<(Derivation, PublicKey)>,
    ) -> Result<Option<Blocks>, RootfsError> {
        let path = self.rootfs_path(&found.manifest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RootfsError::Absent { manifest: found.manifest });
            }
            Err(source) => return Err(RootfsError::Io { path, source }),
            Ok(bytes) => bytes,
        };
        match signed(&bytes).filter(|(_, key)| ring.is_own(key)) {
            Some((record, _)) if record.names_what(found) => Ok(record.blocks),
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
        let (manifest, rootfs) = (Digest::of(b"m"), Digest::of(b"r"));
        let record = Derivation { manifest, rootfs, size: 9, blocks: None };
        signing.vouch_rootfs(&record).unwrap();
        let ring = signing.ring().unwrap().unwrap();
        assert_eq!(signing.check_rootfs(&ring, &record).unwrap(), None);
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
    #[test]
    fn what_blocks_measure_is_signed_of_the_bytes_that_were_summed() {
        let root = tempfile::tempdir().unwrap();
        let erofs = root.path().join("filesystem");
        let bytes = vec![7; 9000];
        fs::write(&erofs, &bytes).unwrap();
        let (digest, erofs_digest) = (Digest::of(b"m"), Digest::of(&bytes));
        let config = crate::store::ImageConfig::default();
        let files = ImageFiles { digest, erofs, erofs_digest, size_bytes: 9000, config };
        let signing = Signing::of_root(root.path());
        signing.vouch_rootfs(&Derivation::measured(&files).unwrap()).unwrap();
        let ring = signing.ring().unwrap().unwrap();
        let blocks = signing.check_rootfs(&ring, &Derivation::of(&files)).unwrap().unwrap();
        let expected = verity::of_reader(&bytes[..]).unwrap();
        assert_eq!((blocks.fs_verity, blocks.root), (expected.fs_verity, expected.root));
        fs::write(&files.erofs, vec![8; 9000]).unwrap();
        let refused = Derivation::measured(&files);
        assert!(matches!(refused, Err(StoreError::Altered { .. })), "{refused:?}");
    }
}
