//! The store of generations and journals.

mod chain;
mod head;
mod problem;
pub mod sqlite;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use kiln_model::generation::Generation;
use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;

use crate::actor::Actor;
use crate::journal::Entry;

pub use chain::Audit;
pub use problem::Problem;

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

    /// Adds to a stack all of `writes` or none of them, as what `by` has decided or done. When it
    /// returns they are durable: no crash of the process or of the machine loses them. A store
    /// that is not sound takes no decision; entries that decide nothing are held until it is.
    fn append(&self, stack: &StackName, by: &Actor, writes: &[Write]) -> Result<(), StoreError>;

    /// Adds an entry that belongs to no stack.
    fn note(&self, _by: &Actor, _entry: &Entry) -> Result<(), StoreError> {
        Ok(())
    }

    /// Looks whether somebody else has touched the store, and if so whether it is what was written.
    /// Cheap where nobody has.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What the last check has found; touches nothing.
    fn sound(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Takes the store as it is for the truth from now on, and writes down that, by whom, when and
    /// why it was so decided, with all that was wrong; that is returned.
    fn accept(
        &self,
        _by: &Actor,
        _at: Timestamp,
        _because: &str,
    ) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
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
    /// The store is not what was written.
    #[error("the store was tampered with or is damaged: {}", problem::list(.0))]
    Unsound(Vec<Problem>),
    /// Something in the store is not what was written.
    #[error("{what} was altered or is damaged: {problem}; restore the store from a backup")]
    Altered {
        /// What.
        what: String,
        /// How it shows.
        problem: String,
    },
}
