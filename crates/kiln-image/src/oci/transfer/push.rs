//! From the store to a registry: blobs first, then the manifest, then what is said about it.

use std::collections::BTreeMap;

use kiln_model::digest::Digest;

use super::{Meter, PARALLEL, TransferError};
use crate::oci::reference::Reference;
use crate::oci::registry::Registry;
use crate::parallel;
use crate::progress::Progress;
use crate::store::{Descriptor, ImageStore, MANIFEST_MEDIA_TYPE, Manifest};

/// What is in the registry now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The image's digest, which is the same there.
    pub digest: Digest,
    /// How many blobs it has.
    pub blobs: usize,
    /// How many artifacts about it went along.
    pub referrers: usize,
}

impl ImageStore {
    /// Brings an image and all artifacts about it into a registry, byte for byte as they are here.
    pub fn push(
        &self,
        registry: &Registry,
        image: &Digest,
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<Pushed, TransferError> {
        if reference.digest.is_some_and(|digest| digest != *image) {
            let reference = reference.to_string();
            return Err(TransferError::OtherDigest { reference, image: *image });
        }
        let manifest = self.manifest(image)?;
        let artifacts = self.artifacts(image)?;
        let mut blobs: Vec<Descriptor> = Vec::new();
        for manifest in std::iter::once(&manifest).chain(artifacts.iter().map(|(.., m)| m)) {
            for blob in manifest.blobs() {
                if blobs.iter().all(|known| known.digest != blob.digest) {
                    blobs.push(blob.clone());
                }
            }
        }
        let elsewhere = self.elsewhere(reference)?;
        let meter = Meter::new(progress, true, &blobs);
        parallel::each(&blobs, PARALLEL, |blob| {
            let from = elsewhere.get(&blob.digest).map(String::as_str);
            // Nothing goes out that is not what its name says; the registry looks as well.
            let path = self.blob(&blob.digest);
            registry.upload(reference, blob, &path, from, &|more| meter.moved(more))?;
            meter.blob_done();
            Ok::<(), TransferError>(())
        })?;
        self.put(registry, reference, &reference.version(), image, &manifest)?;
        if reference.tag.is_some() && reference.digest.is_some() {
            let tag = reference.tag.clone().unwrap_or_default();
            self.put(registry, reference, &tag, image, &manifest)?;
        }
        for (subject, digest, artifact) in &artifacts {
            let noted = self.put(registry, reference, &digest.to_string(), digest, artifact)?;
            if !noted {
                let listed = self.listed(digest, artifact)?;
                registry.list_referrer(reference, subject, listed)?;
            }
        }
        self.note_reference(reference, *image)?;
        Ok(Pushed { digest: *image, blobs: blobs.len(), referrers: artifacts.len() })
    }

    /// All artifacts about an image, and those about them, each with what it is about.
    fn artifacts(&self, image: &Digest) -> Result<Vec<(Digest, Digest, Manifest)>, TransferError> {
        let mut artifacts: Vec<(Digest, Digest, Manifest)> = Vec::new();
        let mut subjects = vec![*image];
        while let Some(subject) = subjects.pop() {
            for (digest, manifest) in self.referrers(&subject)? {
                if artifacts.iter().all(|(_, known, _)| *known != digest) {
                    subjects.push(digest);
                    artifacts.push((subject, digest, manifest));
                }
            }
        }
        Ok(artifacts)
    }

    fn put(
        &self,
        registry: &Registry,
        reference: &Reference,
        version: &str,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<bool, TransferError> {
        let bytes = self.bytes(digest)?;
        Ok(registry.put_manifest(reference, version, media_type(manifest), &bytes)?)
    }

    /// The entry for an artifact in a list of those about an image.
    fn listed(&self, digest: &Digest, artifact: &Manifest) -> Result<Descriptor, TransferError> {
        let size = self.bytes(digest)?.len() as u64;
        let mut listed = Descriptor::new(media_type(artifact), (*digest, size));
        let kind = artifact.artifact_type.clone();
        listed.artifact_type = kind.or_else(|| Some(artifact.config.media_type.clone()));
        listed.annotations = artifact.annotations.clone();
        Ok(listed)
    }

    /// Where else in the registry a blob is, as far as is known: by blob, the repository.
    fn elsewhere(&self, to: &Reference) -> Result<BTreeMap<Digest, String>, TransferError> {
        let mut found = BTreeMap::new();
        for known in self.known()? {
            let Ok(reference) = known.reference.parse::<Reference>() else { continue };
            if reference.host != to.host || reference.repository == to.repository {
                continue;
            }
            // An image that has gone from the store tells nothing.
            let Ok(manifest) = self.manifest(&known.manifest) else { continue };
            for blob in manifest.blobs() {
                found.insert(blob.digest, reference.repository.clone());
            }
        }
        Ok(found)
    }
}

/// The type to name a manifest by; old ones do not say it themselves.
fn media_type(manifest: &Manifest) -> &str {
    if manifest.media_type.is_empty() { MANIFEST_MEDIA_TYPE } else { &manifest.media_type }
}
