//! What this machine needs from outside: images, and the values of secrets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::quantity::Bytes;
use kiln_model::trust::Demands;

/// Where images come from.
pub trait Images: Send + Sync + 'static {
    /// The image of a content digest, verified: what is given is what was built, and may be
    /// started under these demands.
    ///
    /// Of the filesystem this need not read a byte: that is done, or made needless, by what keeps
    /// it from being altered while instances run from it.
    fn get(&self, content: &Digest, demands: &Demands) -> Result<ImageFiles, ImageRefusal>;

    /// Reads a file from its beginning to its end, whatever its position is.
    fn measure(&self, file: &File) -> io::Result<FileDigests>;

    /// The file with the hash tree of an image's filesystem, as dm-verity reads it; made from
    /// `file`, which is the filesystem, where there is none yet.
    fn hash_tree(&self, image: &ImageFiles, file: &File) -> io::Result<PathBuf> {
        let _ = (image, file);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The image anew, after its filesystem was found to be altered: that file is put aside, and
    /// another made of what the image consists of. Otherwise the reason, in words.
    fn remake(&self, content: &Digest) -> Result<ImageFiles, String> {
        let _ = content;
        Err("`kiln image build` makes it anew".to_owned())
    }
}

/// Why an image must not be started. It stays so until somebody acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRefusal {
    /// The reason.
    pub cause: String,
    /// The way out.
    pub hint: String,
}

/// What a filesystem's file measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigests {
    /// The checksum of all its bytes.
    pub digest: Digest,
    /// What the kernel measures of it by fs-verity (SHA-256, blocks of 4096 bytes, no salt).
    pub fs_verity: Digest,
    /// The root of its hash tree for dm-verity (the same).
    pub root: Digest,
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

    /// The value of a version of a secret. Otherwise the reason, in words.
    fn reveal_version(
        &self,
        stack: &StackName,
        secret: &ComponentId,
        version: &str,
    ) -> Result<String, String>;
}

/// An image, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFiles {
    /// The EROFS file.
    pub rootfs: PathBuf,
    /// The checksum that the file must have.
    pub digest: Digest,
    /// What the file must measure, where somebody whom this machine believes has signed it; else it
    /// is read in full to know it.
    pub signed: Option<FileDigests>,
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
