//! Backups of databases as they are stored: where they go, in which form, how a segment of the log
//! gets there and is proved to be there, which are kept, and which restore a moment.
//!
//! Nothing here knows instances or starts a program. What is stored are the engine's own files; the
//! layout stands in `docs/databases-backups.md`, so that it can be restored without Kiln.

pub mod age;
pub mod archive;
pub mod catalogue;
pub mod choice;
pub mod retention;
pub mod segment;
pub mod store;

mod bech32;

pub use store::{Object, Store, StoreError};
