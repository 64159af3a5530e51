//! Instances on the real kernel: what they are, what they may do, how they end, and that nothing
//! is left of them. Run as root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod confinement;
mod ends;
mod lifecycle;
mod networks;
mod support;
