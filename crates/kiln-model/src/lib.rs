//! The words of Kiln as types, and the one function that decides: [`plan::plan`].
//!
//! Nothing here reads a clock, a disk or a network. A stack's configuration becomes
//! [`spec::Spec`]s; [`seal::seal`] gives each its [`digest::Digest`]; a set of them is a
//! [`generation::Generation`]; [`plan::plan`] compares one with what was
//! [observed](observed::Observed) and says which steps lead there.

pub mod address;
pub mod alarm;
pub mod analysis;
pub mod calendar;
pub mod canonical;
pub mod certificate;
pub mod change;
pub mod data;
pub mod digest;
pub mod drift;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod generation;
pub mod handling;
pub mod health;
pub mod name;
pub mod observed;
pub mod plan;
pub mod quantity;
pub mod route;
pub mod scaling;
pub mod seal;
pub mod spec;
pub mod text;
pub mod trust;
