//! Following a branch: what is on it is deployed, commit by commit.
//!
//! `kiln follow` registers a branch in the root ([`registry`]); the daemon keeps one process for each
//! (`server/followers.rs`), which looks, fetches, prepares and proposes ([`work`]) and writes down what
//! becomes of each commit ([`record`]). The processes are clients of the daemon like any other: what
//! a commit holds is fetched, evaluated and built outside of it.
//!
//! A repository is data: `git.rs` says how git is kept from running anything of it, `tree.rs` how
//! files are written out so that nothing leads elsewhere.

pub mod address;
mod decide;
mod deploy;
mod error;
mod flight;
pub mod git;
mod local;
mod mirror;
pub mod record;
pub mod registry;
mod signature;
mod tree;
pub mod webhook;
mod worker;

use std::path::Path;

use address::Address;
use mirror::{Mirror, MirrorError};
use registry::Follow;

use crate::root::Root;

pub use error::WorkError;
pub use signature::Signers;
pub use worker::work;

/// Why a branch can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The address.
    #[error(transparent)]
    Address(#[from] address::AddressError),
    /// The repository can't be read.
    #[error("{0}")]
    Repository(String, Option<&'static str>),
    /// It has no such branch.
    #[error("{url} has no branch {branch}")]
    NoBranch {
        /// The repository.
        url: String,
        /// The branch.
        branch: String,
    },
}

impl ProbeError {
    /// The way out.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Address(error) => error.help(),
            Self::Repository(_, help) => *help,
            Self::NoBranch { .. } => Some("push it first, or name another one with --branch"),
        }
    }
}

/// Asks a repository where its branch is, before it is followed.
pub fn probe(root: &Root, follow: &Follow) -> Result<String, ProbeError> {
    let address = Address::parse(&follow.url, Path::new("/"))?;
    address::check_branch(&follow.branch)?;
    let access =
        mirror::Access { identity: follow.identity.clone(), token_file: follow.token_file.clone() };
    let place = root.path().join("cache");
    let tip = Mirror::new(address, &follow.branch, access, &place).tip().map_err(|error| {
        let help = match &error {
            MirrorError::Unreachable { source, .. } => source.help(),
            _ => None,
        };
        ProbeError::Repository(crate::server::chain(&error), help)
    })?;
    tip.ok_or_else(|| ProbeError::NoBranch {
        url: follow.url.clone(),
        branch: follow.branch.clone(),
    })
}

/// Removes what following has left that can be made again: the mirror and the files of the last
/// commit.
pub(crate) fn forget(root: &Root, id: &str) -> std::io::Result<()> {
    match std::fs::remove_dir_all(deploy::place(root, id)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
