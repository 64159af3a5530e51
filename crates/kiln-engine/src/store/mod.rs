//! The store of generations and journals.

pub mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;

use kiln_model::generation::Generation;
use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;

use crate::journal::Entry;

/// Where generations and journals are kept.
pub trait Store: Send + Sync + 'static {
    /// The stacks that have a journal, in order.
    fn stacks(&self) -> Result<Vec<StackName>, StoreError>;

    /// A generation of a stack.
    fn generation(
        &self,
        stack: &StackName,
        number: u64,
    ) -> Result<Option<Arc<Generation>>, StoreError>;

    /// The numbers of a stack's generations, in order.
    fn numbers(&self, stack: &StackName) -> Result<Vec<u64>, StoreError>;

    /// A stack's journal in order: every entry that decides on a generation or a pin, the last
    /// one about each count that follows demand, and of the others those since `since`.
    fn journal(&self, stack: &StackName, since: Timestamp) -> Result<Vec<Entry>, StoreError>;

    /// Adds to a stack all of `writes` or none of them. When it returns they are durable: no
    /// crash of the process or of the machine loses them.
    fn append(&self, stack: &StackName, writes: &[Write]) -> Result<(), StoreError>;
}

/// Something to be stored.
#[derive(Debug, Clone)]
pub enum Write {
    /// A new generation.
    Generation(Arc<Generation>),
    /// A new entry of the journal.
    Entry(Entry),
}

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store.
    #[error("the store's {path} cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("the store's database cannot {action}")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The store is of another version.
    #[error(
        "the store is of format {found}, and this kiln knows {known}: use the kiln that wrote it"
    )]
    Format {
        /// The version of the store.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// Something in the store is not what was written.
    #[error("{what} was altered or is damaged: {problem}; restore the store from a backup")]
    Altered {
        /// What.
        what: String,
        /// How it shows.
        problem: String,
    },
}
