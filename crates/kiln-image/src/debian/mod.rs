//! Debian's archives: signed releases, package indexes, and which packages a request needs.

pub mod archive;
pub mod control;
pub mod date;
pub mod package;
pub mod relation;
pub mod release;
pub mod resolve;
mod state;
pub mod suite;
pub mod universe;
pub mod version;
