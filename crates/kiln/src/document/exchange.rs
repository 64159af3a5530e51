//! Images that go and come.

use schemars::JsonSchema;
use serde::Serialize;

use super::image::ImageDocument;

/// What `image push` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "push")]
pub(crate) struct PushDocument {
    /// The image's name here.
    pub(crate) name: String,
    /// Where it is now.
    pub(crate) reference: String,
    /// Its digest, which is the same there.
    pub(crate) digest: String,
    /// How many artifacts about it went along: signatures, lists of contents.
    pub(crate) referrers: usize,
}

/// What `image pull` and `image import` print.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "pull")]
pub(crate) struct PullDocument {
    /// The image.
    #[serde(flatten)]
    pub(crate) image: ImageDocument,
    /// Where it came from; null where from a file.
    pub(crate) reference: Option<String>,
    /// How many artifacts about it came along.
    pub(crate) referrers: usize,
}

/// What `image export` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "export")]
pub(crate) struct ExportDocument {
    /// The image's name.
    pub(crate) name: String,
    /// Its digest.
    pub(crate) digest: String,
    /// The directory or archive.
    pub(crate) path: String,
    /// How many blobs were written.
    pub(crate) blobs: usize,
}
