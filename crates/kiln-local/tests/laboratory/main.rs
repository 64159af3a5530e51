//! Tests of images on the real kernel.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: a failed expectation is a panic"
)]

mod checks;
mod ends;
mod support;
