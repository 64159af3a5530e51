//! Programs in sandboxes on the real kernel.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: a failed expectation is a panic"
)]

mod confinement;
mod ends;
mod images;
mod support;
