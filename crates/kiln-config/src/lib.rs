//! From HCL to specs, with diagnostics that point at the source.

pub mod diagnostic;
pub mod eval;
pub mod fmt;
pub mod function;
pub mod stack;
pub mod syntax;
pub mod value;
