//! From recipes to locked, verified, read-only images, and the store that keeps them.
//!
//! A recipe names a base, packages and steps. [`lock::Lock::update`] resolves what it asks an
//! archive for to exact packages, of which [`lock`] keeps names, versions and checksums.
//! [`store::ImageStore::build`] fetches those, puts them together without running anything that
//! is in them, and publishes the result as one EROFS filesystem. The same lock gives the same
//! bytes anywhere and at any time.

pub mod build;
pub mod checksum;
pub mod copy;
pub mod deb;
pub mod debian;
pub mod erofs;
pub mod fetch;
pub mod lock;
pub mod openpgp;
pub mod progress;
pub mod rootfs;
pub mod store;
pub mod tree;
pub mod verity;
