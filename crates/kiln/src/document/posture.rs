//! What is measured of the posture of instances.

use schemars::JsonSchema;
use serde::Serialize;

/// What `audit` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "audit")]
pub(crate) struct PostureDocument {
    /// The stack.
    pub(crate) stack: String,
    /// How many instances were measured.
    pub(crate) instances: u64,
    /// How many rules hold for all of them.
    pub(crate) passed: u64,
    /// How many do not.
    pub(crate) failed: u64,
    /// The rules, in a fixed order.
    pub(crate) rules: Vec<RuleDocument>,
}

/// One rule, and what was measured.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct RuleDocument {
    /// Its name.
    pub(crate) id: &'static str,
    /// The recommendations of the CIS Docker Benchmark 1.6 that ask for it; empty where it goes
    /// beyond them.
    pub(crate) cis: &'static str,
    /// What is to be so.
    pub(crate) title: &'static str,
    /// Why.
    pub(crate) reason: &'static str,
    /// Whether it holds for all instances.
    pub(crate) pass: bool,
    /// What was measured, by instance.
    pub(crate) findings: Vec<FindingDocument>,
}

/// What was measured of one instance.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct FindingDocument {
    /// The instance.
    pub(crate) instance: String,
    /// Whether the rule holds.
    pub(crate) pass: bool,
    /// The measured value.
    pub(crate) found: String,
}
