//! OCI artifacts: manifests that refer to an image and name one blob.

use std::collections::BTreeMap;

use kiln_model::digest::Digest;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::store::{Descriptor, ImageStore, StoreError};

const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The content of the empty descriptor.
const EMPTY: &[u8] = b"{}";
/// Where others look for the type of a statement, as Docker's tools do.
const PREDICATE_ANNOTATION: &str = "in-toto.io/predicate-type";

/// The manifest of an artifact (image specification 1.1, "Guidelines for Artifact Usage").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Always 2.
    pub schema_version: u32,
    /// That of a manifest.
    pub media_type: String,
    /// What the artifact is.
    pub artifact_type: String,
    /// The empty descriptor.
    pub config: Descriptor,
    /// What it holds.
    pub layers: Vec<Layer>,
    /// What it refers to.
    pub subject: Descriptor,
}

/// One blob of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// What the blob is.
    pub media_type: String,
    /// Its checksum.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// Publishes an envelope as an artifact that refers to an image of the store: blobs first,
    /// then the manifest, then the note by which it is found.
    pub(super) fn publish(
        store: &ImageStore,
        kind: Kind,
        subject: &Digest,
        envelope: &[u8],
    ) -> Result<Digest, StoreError> {
        let size = store.read_blob(subject)?.len() as u64;
        let describe = |media_type: &str, digest, size| Descriptor::new(media_type, (digest, size));
        let (layer, layer_size) = store.publish_bytes(envelope)?;
        let (config, config_size) = store.publish_bytes(EMPTY)?;
        let annotation = (PREDICATE_ANNOTATION.to_owned(), kind.predicate_type().to_owned());
        let artifact = Self {
            schema_version: 2,
            media_type: MANIFEST_MEDIA_TYPE.to_owned(),
            artifact_type: kind.media_type().to_owned(),
            config: describe(EMPTY_MEDIA_TYPE, config, config_size),
            layers: vec![Layer {
                media_type: kind.media_type().to_owned(),
                digest: layer,
                size: layer_size,
                annotations: [annotation].into(),
            }],
            subject: describe(MANIFEST_MEDIA_TYPE, *subject, size),
        };
        let bytes = serde_json::to_vec(&artifact).expect("digests and texts are JSON");
        let (digest, _) = store.publish_bytes(&bytes)?;
        store.note_referrer(subject, &digest)?;
        Ok(digest)
    }

    /// The artifact of a digest; nothing where the blob is something else.
    pub(crate) fn read(store: &ImageStore, digest: &Digest) -> Result<Option<Self>, StoreError> {
        Ok(serde_json::from_slice(&store.read_blob(digest)?).ok())
    }
}
