//! What this machine needs from outside: images, and the values of secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::quantity::Bytes;
use kiln_model::trust::Demands;

/// Where images come from.
pub trait Images: Send + Sync + 'static {
    /// The image of a content digest, verified: what is given is what was built, and may be
    /// started under these demands.
    fn get(&self, content: &Digest, demands: &Demands) -> Result<ImageFiles, ImageRefusal>;
}

/// Why an image must not be started. It stays so until somebody acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRefusal {
    /// The reason.
    pub cause: String,
    /// The way out.
    pub hint: String,
}

/// Where the values of secrets come from.
pub trait SecretValues: Send + Sync + 'static {
    /// The value of a secret in a generation of a stack. Otherwise the reason, in words.
    fn reveal(
        &self,
        stack: &StackName,
        generation: u64,
        secret: &ComponentId,
    ) -> Result<String, String>;
}

/// An image, ready to be mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFiles {
    /// The EROFS file.
    pub rootfs: PathBuf,
    /// The program and its first arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Who the program runs as, in the form that the launcher takes; empty for user 0.
    pub user: String,
    /// Where the program starts.
    pub workdir: String,
    /// Writable space that servers get unless they say otherwise.
    pub writable: BTreeMap<String, Bytes>,
}
