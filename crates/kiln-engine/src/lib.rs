//! The store of generations, the executor and the guard, over a target that is handed in.
//!
//! One [keeper](engine::Keeper) per stack observes, plans, acts, and begins again. The
//! [`Target`], the [`Clock`], the [`Store`] and the planner are given to it, so that the same
//! code runs on a real machine and in a simulation that ends it at any point.

pub mod actor;
pub mod alarm;
pub mod backup;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod failure;
pub mod guard;
pub mod journal;
pub mod key;
pub mod metrics;
pub mod progress;
pub mod secret;
pub mod store;
pub mod target;

pub use clock::Clock;
pub use store::Store;
pub use target::{Target, TargetError};
