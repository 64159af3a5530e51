//! Why the process that follows a branch ends.

use std::io;

use crate::ledger::LedgerError;
use crate::root::RootError;

use super::address::AddressError;
use super::registry::RegistryError;

/// Why a branch can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// It is not registered.
    #[error("nothing is followed as {0}")]
    Unknown(String),
    /// Another process does it.
    #[error("another process follows {0} already")]
    Taken(String),
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Threads, or a directory.
    #[error("the process cannot {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}
