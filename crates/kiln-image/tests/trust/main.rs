//! Keys, admission, what is attested, and collections, over a store with small images.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod admission;
mod collect;
mod documents;
mod world;
