//! From HCL to specs, with diagnostics that point at the source.
//!
//! - [`syntax`] reads text: a parser of HCL's native syntax that goes on behind mistakes;
//! - [`value`], [`function`] and [`eval`] are the language: values, what can be called, and how
//!   an expression gets its value;
//! - [`stack`] knows what Kiln's blocks mean and makes specs of them: [`stack::load`] is the way in;
//! - [`fmt`] writes the canonical form;
//! - [`diagnostic`] is what is told to people.
//!
//! Nothing is read but the stack's directory, the files that are named, and what is handed in.

pub mod diagnostic;
pub mod eval;
pub mod fmt;
pub mod function;
pub mod stack;
pub mod syntax;
pub mod value;
