//! The documents that `--json` prints. Their schemas stand in `docs/schemas`.

pub(crate) mod change;
pub(crate) mod exchange;
pub(crate) mod failure;
pub(crate) mod generation;
pub(crate) mod image;
pub(crate) mod incident;
pub(crate) mod look;
pub(crate) mod posture;
pub(crate) mod small;
pub(crate) mod trust;

#[cfg(test)]
mod schemas;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// One output of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Output {
    /// Its value; absent where it is sensitive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<serde_json::Value>,
    /// Whether it is not to be shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sensitive: bool,
}

/// Outputs by name.
pub(crate) type Outputs = BTreeMap<String, Output>;

/// The outputs of a content.
pub(crate) fn outputs(of: &BTreeMap<String, kiln_model::generation::Output>) -> Outputs {
    let output = |output: &kiln_model::generation::Output| Output {
        value: (!output.sensitive).then(|| output.value.clone()),
        sensitive: output.sensitive,
    };
    of.iter().map(|(name, value)| (name.clone(), output(value))).collect()
}
