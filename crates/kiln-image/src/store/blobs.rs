//! Blobs: reading the documents among them, and which of them an image needs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use kiln_model::digest::Digest;
use serde::Serialize;

use super::{Config, Descriptor, ImageStore, Manifest, StoreError, at};
use crate::checksum;

/// The longest manifest or configuration that is read, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// A document as the bytes that its digest is of.
pub(crate) fn to_json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("strings, numbers and lists of them can be written as JSON")
}

impl ImageStore {
    /// The manifest of an image or of an artifact, verified.
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest, StoreError> {
        self.document(digest, "manifest")
    }

    /// The configuration of an image, verified.
    pub fn config(&self, image: &Digest, manifest: &Manifest) -> Result<Config, StoreError> {
        if let Some(artifact_type) = &manifest.artifact_type {
            let reason = format!("it is an artifact of the type {artifact_type}");
            return Err(StoreError::Foreign { digest: *image, reason });
        }
        let config: Config = self.document(&manifest.config.digest, "configuration")?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let (layers, said) = (manifest.layers.len(), config.rootfs.diff_ids.len());
            let reason = format!("it has {layers} layers, but its configuration tells of {said}");
            return Err(StoreError::Foreign { digest: *image, reason });
        }
        Ok(config)
    }

    /// Whether an image's manifest, configuration and layers are all there, by their lengths.
    pub fn holds(&self, image: &Digest) -> bool {
        let Ok(manifest) = self.manifest(image) else { return false };
        manifest.blobs().into_iter().all(|blob| self.has(blob))
    }

    /// Whether a blob is there, by its length.
    pub fn has(&self, blob: &Descriptor) -> bool {
        fs::metadata(self.blob(&blob.digest)).is_ok_and(|metadata| metadata.len() == blob.size)
    }

    /// The artifacts that are about a manifest, by digest: signatures, lists of contents. All short
    /// blobs are looked at, so that nothing has to be believed that could be wrong.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<(Digest, Manifest)>, StoreError> {
        let mut found = Vec::new();
        let wanted = subject.to_string();
        for entry in fs::read_dir(&self.blobs).map_err(at(&self.blobs))? {
            let entry = entry.map_err(at(&self.blobs))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            let short = entry.metadata().is_ok_and(|m| m.len() <= MAX_DOCUMENT_BYTES);
            if !short || !begins_as_document(&entry.path()) {
                continue;
            }
            let text = fs::read(entry.path()).map_err(at(&entry.path()))?;
            if !contains(&text, wanted.as_bytes()) {
                continue;
            }
            let manifest = serde_json::from_slice::<Manifest>(&text).ok();
            let about = |manifest: &Manifest| {
                manifest.subject.as_ref().is_some_and(|s| s.digest == *subject)
            };
            found.extend(manifest.filter(about).map(|manifest| (digest, manifest)));
        }
        found.sort_by_key(|(digest, _)| *digest);
        Ok(found)
    }

    /// All blobs that an image needs: manifest, configuration, layers, filesystem, and the artifacts
    /// about it with what they consist of.
    pub fn blobs_of(&self, image: &Digest) -> Result<Vec<Digest>, StoreError> {
        let mut needed = vec![*image];
        let manifest = self.manifest(image)?;
        needed.extend(manifest.blobs().iter().map(|blob| blob.digest));
        needed.extend(self.rootfs(image)?.map(|record| record.erofs));
        let mut subjects = vec![*image];
        while let Some(subject) = subjects.pop() {
            for (digest, artifact) in self.referrers(&subject)? {
                if !needed.contains(&digest) {
                    needed.push(digest);
                    subjects.push(digest);
                }
                needed.extend(artifact.blobs().iter().map(|blob| blob.digest));
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Ok(needed)
    }

    /// A blob's path and its file, unread.
    fn open_blob(&self, digest: &Digest) -> Result<(PathBuf, File), StoreError> {
        let path = self.blob(digest);
        match File::open(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Absent { digest: *digest, path: self.blobs.clone() })
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The bytes of a manifest or configuration, verified.
    pub fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let (path, file) = self.open_blob(digest)?;
        let mut text = Vec::new();
        file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut text).map_err(at(&path))?;
        if text.len() as u64 > MAX_DOCUMENT_BYTES {
            let reason = "it is longer than any manifest or configuration".to_owned();
            return Err(StoreError::Foreign { digest: *digest, reason });
        }
        let found = Digest::of(&text);
        if found == *digest {
            return Ok(text);
        }
        Err(StoreError::Altered { expected: *digest, found, path })
    }

    /// Reads and verifies a manifest or configuration.
    fn document<T: serde::de::DeserializeOwned>(
        &self,
        digest: &Digest,
        what: &'static str,
    ) -> Result<T, StoreError> {
        let document = serde_json::from_slice(&self.bytes(digest)?);
        document.map_err(|source| StoreError::Document { digest: *digest, what, source })
    }

    /// Reads each byte of a blob and compares.
    pub(crate) fn verify_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let (path, file) = self.open_blob(digest)?;
        let (found, _) = checksum::of_reader(file).map_err(at(&path))?;
        if found == *digest {
            return Ok(());
        }
        Err(StoreError::Altered { expected: *digest, found, path })
    }
}

/// Whether a file begins as a JSON object.
fn begins_as_document(path: &std::path::Path) -> bool {
    let mut first = [0];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *b"{"
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
