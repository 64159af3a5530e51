//! The command line as a program, in a clean environment: everything that needs no kernel.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod environment;
mod exchange;
mod failures;
mod first;
mod formatting;
mod images;
mod planning;
