//! The catalogue: what can be done to instances and networks behind Kiln's back, done to real ones
//! under load. Each row must be found and answered by replacement, without a failed request and
//! without anything else being replaced.
//!
//! `KILN_CATALOGUE_ROUNDS=20` does each row so often and prints, per row, after what time it was
//! found (p50, p99) and replaced.

mod groups;
mod healthy;
mod hindered;
mod mounts;
mod networks;
mod nft;
mod processes;
pub mod range;
mod root;
mod storm;
