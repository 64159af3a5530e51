//! From HCL to specs, with diagnostics that point at the source.

pub mod diagnostic;
pub mod fmt;
pub mod stack;
pub mod syntax;
