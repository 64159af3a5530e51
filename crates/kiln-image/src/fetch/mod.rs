//! Fetching files over HTTP, or from this machine, into a cache that keeps them by their checksum.

mod batch;
mod cache;
mod client;
mod local;
mod resolver;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kiln_model::digest::Digest;

pub use cache::Cache;
pub use client::Fetcher;
pub(crate) use resolver::OnceResolver;

/// A file that is known by its checksum before it is fetched.
#[derive(Clone, Debug)]
pub struct Download {
    /// Where it can be had: the first address that has it is taken.
    pub urls: Vec<String>,
    /// What it must sum to.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// Bounds on patience. Each wait has one.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How often a file is tried when connections break or servers fail.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles with each further one, up to 5 s.
    pub first_pause: Duration,
    /// The longest pause that a server may ask for; one that asks for more is not waited for.
    pub longest_pause: Duration,
    /// For a connection to be made.
    pub connect: Duration,
    /// For the next bytes to arrive.
    pub stall: Duration,
    /// For one file in all.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(20),
            whole: Duration::from_secs(30 * 60),
        }
    }
}

/// A file that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server does not have it.
    #[error("{url} does not exist on the server (status {status})")]
    Absent {
        /// The address.
        url: String,
        /// The HTTP status: 404 or 410.
        status: u16,
    },
    /// The server wants to know who asks, or does not give it to this one.
    #[error(
        "{url} is refused with status {status}; the server wants credentials, which are not supported, or does not let this machine in: set another mirror"
    )]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status: 401, 403 or 407.
        status: u16,
    },
    /// The server asks to wait for longer than is waited.
    #[error(
        "{url} is answered with status {status} and the demand to wait for {wait_seconds} s; try again then, or set another mirror"
    )]
    Later {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the server wants to be left alone.
        wait_seconds: u64,
    },
    /// The server refuses or fails.
    #[error("{url} is answered with status {status}; try later or set another mirror")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// No connection, or one that broke each time.
    #[error(
        "can't fetch {url} ({attempts} attempts); check the network, or name another mirror in \
         KILN_DEBIAN_MIRROR or KILN_DEBIAN_SECURITY_MIRROR"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong last.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What came is not what was asked for.
    #[error(
        "{url} has the checksum {found}, but {expected} was expected: the file or the mirror was altered; nothing was kept of it"
    )]
    Checksum {
        /// The address.
        url: String,
        /// What it must sum to.
        expected: Digest,
        /// What it sums to.
        found: Digest,
    },
    /// What the server offers has another length.
    #[error(
        "{url} has {found_bytes} bytes, but {expected_bytes} were expected: the file or the mirror was altered; nothing was kept of it"
    )]
    Length {
        /// The address.
        url: String,
        /// The length that it must have.
        expected_bytes: u64,
        /// The length that it has.
        found_bytes: u64,
    },
    /// What came is longer than it may be.
    #[error("{url} is longer than the {limit_bytes} bytes that were expected")]
    TooLong {
        /// The address.
        url: String,
        /// The bound in bytes.
        limit_bytes: u64,
    },
    /// A file of this machine can't be read.
    #[error("can't read {url}")]
    Local {
        /// The address.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The cache can't be used.
    #[error("can't use the cache at {path}")]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process fetches the same file and does not come to an end.
    #[error(
        "another process has been fetching {path} for {waited_seconds} s; end it and try again"
    )]
    Busy {
        /// The unfinished file.
        path: PathBuf,
        /// How long was waited.
        waited_seconds: u64,
    },
}
