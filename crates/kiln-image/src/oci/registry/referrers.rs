//! What refers to an image: signatures, lists of contents, provenance.

use kiln_model::digest::Digest;

use super::request::{Call, Scope};
use super::{MAX_MANIFEST_BYTES, Registry, RegistryError};
use crate::oci::reference::Reference;
use crate::store::{Descriptor, INDEX_MEDIA_TYPE, Index};

impl Registry {
    /// The artifacts in the repository of a reference that are about the manifest `subject`; where
    /// the registry does not keep account of them, those that are listed under the tag for it.
    pub fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let url = format!("{}/v2/{}/referrers/{subject}", reference.root(), reference.repository);
        let scope = Scope::pull(reference);
        let call = Call::new("GET", &url, &scope).header("Accept", INDEX_MEDIA_TYPE);
        if let Some(bytes) = self.retry(&url, || self.read(&call, MAX_MANIFEST_BYTES))? {
            let index: Index = serde_json::from_slice(&bytes).map_err(|source| {
                RegistryError::Document { url, what: "list of manifests", source }
            })?;
            return Ok(index.manifests);
        }
        Ok(self.tagged_referrers(reference, subject)?.map_or(Vec::new(), |index| index.manifests))
    }

    /// Adds an artifact to the list under the tag for what it is about.
    pub(crate) fn list_referrer(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact: Descriptor,
    ) -> Result<(), RegistryError> {
        let mut index =
            self.tagged_referrers(reference, subject)?.unwrap_or(Index::new(Vec::new()));
        if index.manifests.iter().any(|known| known.digest == artifact.digest) {
            return Ok(());
        }
        index.manifests.push(artifact);
        let bytes = crate::store::to_json(&index);
        self.put_manifest(reference, &tag_for(subject), INDEX_MEDIA_TYPE, &bytes).map(drop)
    }

    fn tagged_referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
    ) -> Result<Option<Index>, RegistryError> {
        let tag = tag_for(subject);
        let Some(bytes) = self.manifest_bytes(reference, &tag)? else { return Ok(None) };
        let url = format!("{}/{}:{tag}", reference.host, reference.repository);
        let document = serde_json::from_slice(&bytes);
        let what = "list of manifests";
        document.map(Some).map_err(|source| RegistryError::Document { url, what, source })
    }
}

/// The tag under which artifacts are listed (distribution specification, "referrers tag schema").
fn tag_for(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}
