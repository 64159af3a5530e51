//! The daemon: one per root, owns the store, runs the engine, serves the API; and what its
//! clients share: the requests, and what is prepared before a generation is committed.

pub mod api;
pub mod client;
pub mod follow;
pub mod ledger;
pub mod lineage;
pub mod prepare;
pub mod root;
pub mod server;
