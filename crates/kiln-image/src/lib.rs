//! From recipes to locked, verified, read-only images, and the store that keeps them.
//!
//! A recipe names a base, packages and steps. [`lock::Lock::update`] resolves what it asks an
//! archive for to exact packages, of which [`lock`] keeps names, versions and checksums.
//! [`store::ImageStore::build`] fetches those, puts them together without running anything that
//! is in them, and publishes the result as one EROFS filesystem. The same lock gives the same
//! bytes anywhere and at any time.
//!
//! [`sign`] keeps the root's keys, [`attest`] says what an image is and how it came to be,
//! [`admission`] signs that its tests passed and checks it before each start, [`audit`] verifies
//! all that is kept, and [`gc`] removes what nobody needs.

pub mod admission;
pub mod attest;
pub mod audit;
pub mod build;
pub mod checksum;
pub mod compare;
pub mod copy;
pub mod deb;
pub mod debian;
pub mod erofs;
pub mod fetch;
pub mod gc;
pub mod lock;
pub mod oci;
pub mod openpgp;
mod parallel;
pub mod progress;
pub mod rootfs;
pub mod sandbox;
pub mod sign;
pub mod store;
pub mod surface;
pub mod tree;
pub mod trial;
pub mod verity;
