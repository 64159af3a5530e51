//! EROFS images as the kernel and `fsck.erofs` see them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cases;
mod golden;
mod mounted;
mod random;
mod read;
