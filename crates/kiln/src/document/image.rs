//! Images.

use schemars::JsonSchema;
use serde::Serialize;

/// What `image list` and `image build` print.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "images")]
pub(crate) struct ImagesDocument {
    /// The images of the root, by name.
    pub(crate) images: Vec<ImageDocument>,
}

/// One image.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ImageDocument {
    /// Its name.
    pub(crate) name: String,
    /// The digest of its recipe and locked inputs.
    pub(crate) recipe: String,
    /// The digest of its content: of the OCI manifest.
    pub(crate) digest: String,
    /// The length of its filesystem in bytes.
    pub(crate) size: u64,
    /// Whether it may be started.
    pub(crate) admitted: bool,
    /// Whose signature it has; null where it has none.
    pub(crate) signed_by: Option<String>,
}

/// What `image show` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "image")]
pub(crate) struct ImageDetailDocument {
    /// The image in short.
    #[serde(flatten)]
    pub(crate) image: ImageDocument,
    /// The file of its filesystem.
    pub(crate) file: String,
    /// The digest of that file.
    pub(crate) file_digest: String,
    /// The user that its program runs as.
    pub(crate) user: String,
    /// Its environment, `NAME=value`.
    pub(crate) env: Vec<String>,
    /// The program and its first arguments.
    pub(crate) entrypoint: Vec<String>,
    /// The program's working directory.
    pub(crate) working_dir: String,
}

/// What `image lock` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "lock")]
pub(crate) struct LockDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The lock's file.
    pub(crate) file: String,
    /// Whether it says something else than before.
    pub(crate) changed: bool,
    /// What it says otherwise, for each request of packages.
    pub(crate) differences: Vec<LockDifferenceDocument>,
}

/// What became of one request of packages, which images of the same base and packages share.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct LockDifferenceDocument {
    /// The images that make the request, by name.
    pub(crate) images: Vec<String>,
    /// The suite that they start from.
    pub(crate) suite: String,
    /// The architecture, as Debian calls it.
    pub(crate) architecture: String,
    /// Whether it was not locked before.
    pub(crate) new: bool,
    /// The packages that are not as before, by name.
    pub(crate) packages: Vec<LockedPackageDocument>,
}

/// What became of one package.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct LockedPackageDocument {
    /// Its name.
    pub(crate) name: String,
    /// Its architecture, or `all`.
    pub(crate) architecture: String,
    /// The source package that it was built from, by which security advisories go.
    pub(crate) source: String,
    /// `added`, `removed`, `upgraded`, `downgraded`, or `altered` where the version is the same.
    pub(crate) change: String,
    /// The version before; null where it was not there.
    pub(crate) from: Option<String>,
    /// The version after; null where it is no longer there.
    pub(crate) to: Option<String>,
    /// The suite that it comes from now, or came from last.
    pub(crate) suite: String,
    /// The third party's archive that it comes from, by the name that the stack gives it.
    pub(crate) repository: Option<String>,
    /// Whether what is there now comes from the suite of security updates.
    pub(crate) security: bool,
}

/// What `image verify` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "verification")]
pub(crate) struct VerificationDocument {
    /// Whether everything is as it must be.
    pub(crate) intact: bool,
    /// What is not.
    pub(crate) problems: Vec<String>,
}
