//! Networks on the running kernel: each test has its own root, its own namespaces as instances,
//! and a namespace that stands for the host's, so nothing of the machine is touched.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod egress;
mod isolation;
mod lifecycle;
mod measure;
mod services;
mod support;
