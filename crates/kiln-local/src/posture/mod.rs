//! The posture of a running instance: what the kernel says of it, held against rules in the manner
//! of the CIS Docker Benchmark.
//!
//! Nothing is taken from a specification or a record: a rule passes because of what `/proc` and the
//! control groups show of the main process and of every other one in the instance's group.

mod facts;
mod rules;

pub use facts::Facts;
pub use rules::{RULES, Rule};

/// What a rule has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds.
    pub pass: bool,
    /// What was measured.
    pub found: String,
}

impl Finding {
    fn new(pass: bool, found: impl Into<String>) -> Self {
        Self { pass, found: found.into() }
    }
}
