//! Which artifacts refer to an image: signatures, bills of materials, provenance.
//!
//! ```text
//! ROOT/store/images/referrers/HEX/HEX   an empty file: subject, artifact
//! ```
//!
//! The artifacts are blobs, as their manifests name their subject; this only finds them without
//! reading all blobs. What stands here is a hint and proves nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;

use super::{ImageStore, StoreError, at};

impl ImageStore {
    /// Notes that an artifact, whose manifest is a blob, refers to an image.
    pub fn note_referrer(&self, subject: &Digest, artifact: &Digest) -> Result<(), StoreError> {
        let directory = self.referrers_of(subject);
        let path = directory.join(artifact.hex());
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(&directory).map_err(at(&directory))?;
        self.unfinished()?.rename_to(&path)
    }

    /// Notes all artifacts in the store that refer to an image, by [looking](Self::referrers) for
    /// them. How many there are.
    pub(crate) fn note_referrers(&self, subject: &Digest) -> Result<usize, StoreError> {
        let found = self.referrers(subject)?;
        found.iter().try_for_each(|(artifact, _)| self.note_referrer(subject, artifact))?;
        Ok(found.len())
    }

    /// The manifests of the artifacts that are known to refer to an image, by digest.
    pub fn noted_referrers(&self, subject: &Digest) -> Result<Vec<Digest>, StoreError> {
        let directory = self.referrers_of(subject);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(at(&directory))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(at(&directory))?.file_name();
            found.extend(format!("sha256:{}", name.to_string_lossy()).parse::<Digest>());
        }
        found.sort();
        Ok(found)
    }

    /// The bytes of a blob of at most 64 MiB, verified.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob(digest);
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Absent { digest: *digest, path: self.blobs.clone() });
            }
            file => file.map_err(at(&path))?,
        };
        let mut bytes = Vec::new();
        let mut bounded = io::Read::take(file, 64 << 20);
        io::Read::read_to_end(&mut bounded, &mut bytes).map_err(at(&path))?;
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(StoreError::Altered { expected: *digest, found, path }),
        }
    }

    /// Forgets what refers to an image.
    pub(crate) fn forget_referrers(&self, subject: &Digest) -> Result<(), StoreError> {
        let directory = self.referrers_of(subject);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&directory)(error)),
            _ => Ok(()),
        }
    }

    /// The directory of the blobs.
    pub(crate) fn blob_directory(&self) -> &Path {
        &self.blobs
    }

    /// The directory of the index.
    pub(crate) fn index_directory(&self) -> &Path {
        &self.index
    }

    fn referrers_of(&self, subject: &Digest) -> PathBuf {
        self.index.join("referrers").join(subject.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrers_are_found_by_their_subject() {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(root.path()).unwrap();
        let (subject, one, two) = (Digest::of(b"s"), Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(store.noted_referrers(&subject).unwrap(), []);
        for artifact in [one, two, one] {
            store.note_referrer(&subject, &artifact).unwrap();
        }
        let mut both = [one, two];
        both.sort();
        assert_eq!(store.noted_referrers(&subject).unwrap(), both);
        store.forget_referrers(&subject).unwrap();
        assert_eq!(store.noted_referrers(&subject).unwrap(), []);
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn an_altered_blob_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(root.path()).unwrap();
        let (digest, _) = store.publish_bytes(b"content").unwrap();
        assert_eq!(store.read_blob(&digest).unwrap(), b"content");
        fs::remove_file(store.blob(&digest)).unwrap();
        fs::write(store.blob(&digest), b"Content").unwrap();
        assert!(matches!(store.read_blob(&digest), Err(StoreError::Altered { .. })));
    }
}
