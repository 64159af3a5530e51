//! Text that contains a secret: literal parts and references to versions of secrets.
//!
//! The text of a secret never stands in a value. What is written around it is kept as it is,
//! so that `"postgres://shop:${secret.orders}@db"` is a template whose hole is filled at the
//! moment of delivery and nowhere else.

use std::sync::Arc;

use super::Key;
pub use super::escape::Escape;

/// One version of one secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretVersion {
    /// The name of the `secret` component.
    pub secret: Key,
    /// The id of the version. Versions are told apart by it; it says nothing of the text.
    pub version: Key,
}

/// A piece of a [`SecretText`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretPart {
    /// Text as it stands.
    Literal(Arc<str>),
    /// The text of a secret, with the escapes applied in this order.
    Secret(SecretVersion, Vec<Escape>),
}

/// Text with at least one secret in it. Neighbouring literals are joined and none is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretText(Arc<[SecretPart]>);

impl SecretText {
    /// The text that is one secret.
    pub fn new(version: SecretVersion) -> Self {
        Self([SecretPart::Secret(version, Vec::new())].into())
    }

    /// The parts in order.
    pub fn parts(&self) -> &[SecretPart] {
        &self.0
    }

    /// The versions in it, in the order of their first use.
    pub fn versions(&self) -> impl Iterator<Item = &SecretVersion> {
        self.0.iter().filter_map(|part| match part {
            SecretPart::Literal(_) => None,
            SecretPart::Secret(version, _) => Some(version),
        })
    }

    /// The text with `escape` applied to all of it.
    #[must_use]
    pub fn escaped(&self, escape: Escape) -> Self {
        let escaped = self.0.iter().map(|part| match part {
            SecretPart::Literal(text) => SecretPart::Literal(escape.apply(text).into()),
            SecretPart::Secret(version, escapes) => {
                let escapes = escapes.iter().copied().chain([escape]).collect();
                SecretPart::Secret(version.clone(), escapes)
            }
        });
        Self(escaped.collect())
    }
}

/// Joins literal text and secret text; yields plain text where no secret came.
#[derive(Debug, Default)]
pub struct TextBuilder {
    done: Vec<SecretPart>,
    /// Bytes of the literals in `done`.
    flushed: usize,
    literal: String,
}

/// What a [`TextBuilder`] yields.
#[derive(Debug)]
pub enum BuiltText {
    /// No secret was in it.
    Plain(String),
    /// At least one was.
    Secret(SecretText),
}

impl TextBuilder {
    /// Appends text.
    pub fn push_str(&mut self, text: &str) {
        self.literal.push_str(text);
    }

    /// Appends text that contains a secret.
    pub fn push_secret(&mut self, text: &SecretText) {
        for part in text.parts() {
            match part {
                SecretPart::Literal(text) => self.literal.push_str(text),
                SecretPart::Secret(..) => {
                    self.flush();
                    self.done.push(part.clone());
                }
            }
        }
    }

    /// The length so far in bytes, secrets not counted.
    pub fn len(&self) -> usize {
        self.flushed + self.literal.len()
    }

    /// Whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.literal.is_empty()
    }

    /// The whole.
    pub fn finish(mut self) -> BuiltText {
        if self.done.is_empty() {
            return BuiltText::Plain(self.literal);
        }
        self.flush();
        BuiltText::Secret(SecretText(self.done.into()))
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.flushed += self.literal.len();
            self.done.push(SecretPart::Literal(std::mem::take(&mut self.literal).into()));
        }
    }
}
