//! Keys, revocations, and what was removed from the image store.

use schemars::JsonSchema;
use serde::Serialize;

/// What `image key list` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "keys")]
pub(crate) struct KeysDocument {
    /// The keys of the root, and those of others that it has revoked.
    pub(crate) keys: Vec<KeyDocument>,
}

/// One key. What is secret of it is never printed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "key")]
pub(crate) struct KeyDocument {
    /// The public half.
    pub(crate) key: String,
    /// Whether it is the root's own.
    pub(crate) own: bool,
    /// Whether it signs what is admitted from now on.
    pub(crate) current: bool,
    /// When it was revoked; null where it was not.
    pub(crate) revoked_at: Option<String>,
    /// Why it was revoked.
    pub(crate) reason: Option<String>,
}

/// What `image key export` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "exported-key")]
pub(crate) struct ExportedKeyDocument {
    /// The public half.
    pub(crate) key: String,
    /// The public half as PEM.
    pub(crate) pem: String,
    /// The file that the secret half was written to; null where it was not.
    pub(crate) file: Option<String>,
}

/// What `image revoke` and `image key revoke` print.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "revocation")]
pub(crate) struct RevocationDocument {
    /// The digest of an image, or a key.
    pub(crate) revoked: String,
    /// Why.
    pub(crate) reason: Option<String>,
    /// Whether it was not revoked before.
    pub(crate) new: bool,
    /// The key that signs from now on, where the one that did was revoked.
    pub(crate) successor: Option<String>,
}

/// What `image gc` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "collection")]
pub(crate) struct CollectionDocument {
    /// Whether nothing was removed, only told.
    pub(crate) dry_run: bool,
    /// What went, or would go.
    pub(crate) removed: Vec<RemovedDocument>,
    /// How many bytes went, or would go.
    pub(crate) bytes: u64,
    /// How many blobs (and packages, with `--cache`) stayed.
    pub(crate) kept: u64,
    /// How many bytes they have.
    pub(crate) kept_bytes: u64,
}

/// Something that was removed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct RemovedDocument {
    /// `image`, `blob` or `package`.
    pub(crate) kind: String,
    /// The name, where it is an image.
    pub(crate) name: Option<String>,
    /// Its digest.
    pub(crate) digest: String,
    /// How many bytes that freed.
    pub(crate) bytes: u64,
}
