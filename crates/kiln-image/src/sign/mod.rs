//! The keys with which a root signs, and what it has revoked.
//!
//! ```text
//! ROOT/store/signing/keys/HEX.pem  one secret key, PKCS#8, named by its public half, mode 0600
//! ROOT/store/signing/ring.json     which keys are the root's, which signs, what is revoked
//! ROOT/store/signing/lock          held while one of them changes
//! ```
//!
//! The ring is one document, signed by the key that signs at present, with a counter that only
//! grows: an entry that was altered or taken out is found, and so is a ring that is gone while
//! keys are there. What is signed stands in DSSE envelopes ([`dsse`]), whose key ids are the
//! public keys themselves.

pub mod dsse;
mod key;
mod ring;
mod rootfs;
mod signing;

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::trust::PublicKey;

pub use dsse::Envelope;
pub use key::SecretKey;
pub use ring::{Revocation, Ring, What};
pub use rootfs::{Blocks, Derivation, RootfsError};
pub use signing::Signing;

/// Keys that can't be used, or a ring that is not right.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file can't be read or written.
    #[error("can't read or write {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret key's file does not hold the key of its name. What it holds is never shown.
    #[error(
        "{path} does not hold the secret half of {key}; restore it from a backup, or revoke the key"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The key that it is named after.
        key: PublicKey,
    },
    /// A file that is to be taken in holds no key that can be used.
    #[error(
        "{path} is not an Ed25519 secret key in PKCS#8 PEM; `openssl genpkey -algorithm ed25519` makes one"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The ring is not as it was written.
    #[error("{path} was altered: {reason}; restore it from a backup")]
    Ring {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: &'static str,
    },
    /// The ring is gone.
    #[error(
        "{path} is gone, while keys of this root are there; restore it from a backup, as it says what was revoked"
    )]
    NoRing {
        /// The file.
        path: PathBuf,
    },
    /// The ring is older than one that was seen.
    #[error(
        "{path} went back from revision {seen} to {found}; restore the newer one, as it says what was revoked"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// The greatest counter that was seen.
        seen: u64,
        /// The counter that stands there.
        found: u64,
    },
    /// A key that this root does not have.
    #[error("this root has no key {key}")]
    NoSuchKey {
        /// The key.
        key: PublicKey,
    },
    /// A key that was revoked is to be used again.
    #[error(
        "key {key} was revoked and can't be used again; make a new one with `kiln image key new`"
    )]
    Revoked {
        /// The key.
        key: PublicKey,
    },
    /// Another process changes the keys and does not come to an end.
    #[error(
        "another process has been changing the keys in {path} for {waited_seconds} s; end it and try again"
    )]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long was waited.
        waited_seconds: u64,
    },
    /// There are no random bytes.
    #[error("the system gives no random bytes for a key")]
    Random(#[source] getrandom::Error),
}

/// Attaches a path to an I/O error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> SignError {
    let path = path.to_path_buf();
    move |source| SignError::Io { path, source }
}

/// The name of a digest's file.
fn file_of(digest: &Digest) -> String {
    format!("{}.json", digest.hex())
}
