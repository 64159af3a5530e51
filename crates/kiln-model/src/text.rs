//! A text that may contain secrets: literal parts, and references to secrets' versions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canonical::BuiltFrom;

/// One piece of a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Part {
    /// Characters as they stand.
    Literal(String),
    /// The value of a secret, which is filled in only when an instance is started.
    Secret(BuiltFrom),
}

/// A string of a spec. Where it contains a secret it is a template: the secret's value
/// enters neither a digest nor the store, only its version does.
///
/// Serialised as a plain string when it has no secret, else as the list of its parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// No secret in it.
    Plain(String),
    /// Parts in order, at least one of them a secret.
    Template(Vec<Part>),
}

impl Text {
    /// The components (secrets) that it refers to.
    pub fn secrets(&self) -> impl Iterator<Item = &BuiltFrom> {
        let parts = match self {
            Text::Plain(_) => [].iter(),
            Text::Template(parts) => parts.iter(),
        };
        parts.filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Secret(reference) => Some(reference),
        })
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::Plain(text.to_owned())
    }
}

impl fmt::Display for Text {
    /// The text with each secret shown as `(sensitive)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Plain(text) => f.write_str(text),
            Text::Template(parts) => parts.iter().try_for_each(|part| match part {
                Part::Literal(text) => f.write_str(text),
                Part::Secret(_) => f.write_str("(sensitive)"),
            }),
        }
    }
}
