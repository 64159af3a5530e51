//! From recipes to locked, verified, read-only images, and the store that keeps them.

pub mod checksum;
pub mod debian;
pub mod fetch;
pub mod openpgp;
pub mod progress;
pub mod tree;
