//! A client for registries, as the OCI distribution specification 1.1 has them.
//!
//! Requests that meet a busy server or a cut connection are made again after a pause, blobs go on
//! where they stopped, and every wait has a bound. What comes is measured: nothing is believed that
//! does not sum to its digest. A registry on this machine may speak plain HTTP, no other.

mod auth;
mod credentials;
mod download;
mod manifest;
mod referrers;
mod request;
mod retry;
mod upload;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use kiln_model::digest::Digest;
use ureq::Agent;

use crate::fetch::Patience;

pub use credentials::{Credentials, CredentialsError};
pub use manifest::Fetched;

/// The longest manifest that is read, in bytes, as registries have it.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Something a registry does not do.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such thing.
    #[error("{what} does not exist in the registry; check its name and tag")]
    Absent {
        /// What was asked for.
        what: String,
    },
    /// It wants to know who asks.
    #[error(
        "{host} wants a login that {known} for {repository}; log in with `docker login {host}` or \
         `skopeo login {host}`, or set REGISTRY_AUTH_FILE"
    )]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// What is known of a login.
        known: &'static str,
    },
    /// It says no.
    #[error("{host} does not let this login {action} {repository} (status 403)")]
    Denied {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// What was to be done.
        action: &'static str,
    },
    /// It has had enough requests for now.
    #[error("{url} is answered with status 429, too many requests, {attempts} times; try later")]
    Limited {
        /// The address.
        url: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// It answers with something else than was expected.
    #[error("{url} is answered with status {status}{}", reason(.said))]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says about it; may be empty.
        said: String,
    },
    /// No connection, or one that broke each time.
    #[error("can't reach {url} ({attempts} attempts); check the network and the registry's name")]
    Unreachable {
        /// The address.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong last.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What came is not what was asked for.
    #[error("{url} has the checksum {found}, but {expected} was expected; nothing was kept of it")]
    Checksum {
        /// The address.
        url: String,
        /// What it must sum to.
        expected: Digest,
        /// What it sums to.
        found: Digest,
    },
    /// What came is longer than it may be.
    #[error(
        "{url} is longer than the {limit_bytes} bytes that were expected; nothing was kept of it"
    )]
    TooLong {
        /// The address.
        url: String,
        /// The bound in bytes.
        limit_bytes: u64,
    },
    /// A document makes no sense.
    #[error("{url} is not a {what} that this program can use")]
    Document {
        /// The address.
        url: String,
        /// What was expected.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// An answer lacks what it must have.
    #[error("{url} is answered without {what}; the registry does not do as the specification says")]
    Answer {
        /// The address.
        url: String,
        /// What is missing.
        what: &'static str,
    },
    /// It has the image for other machines only.
    #[error("{what} has no image for linux/{architecture}; it has {}", .there.join(", "))]
    Platform {
        /// The reference.
        what: String,
        /// The architecture, as Go calls it.
        architecture: String,
        /// What it has.
        there: Vec<String>,
    },
    /// The file of logins can't be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A file of this machine can't be read or written.
    #[error("can't read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn reason(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// A client. What it learns of a registry (tokens, open connections) is kept while it lives.
#[derive(Debug)]
pub struct Registry {
    /// For this machine, past any proxy.
    near: OnceLock<Agent>,
    far: OnceLock<Agent>,
    credentials: Credentials,
    /// The `Authorization` header by host and scope.
    tokens: Mutex<HashMap<(String, String), String>>,
    patience: Patience,
}

impl RegistryError {
    /// Whether there was no room for what came.
    pub(crate) fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    }
}

impl Registry {
    /// A client with the logins of the user whose environment this is.
    pub fn from_env() -> Self {
        Self::new(Patience { attempts: 5, ..Patience::default() }, Credentials::from_env())
    }

    /// A client with these bounds and logins.
    pub fn new(patience: Patience, credentials: Credentials) -> Self {
        Self {
            near: OnceLock::new(),
            far: OnceLock::new(),
            credentials,
            tokens: Mutex::default(),
            patience,
        }
    }
}
