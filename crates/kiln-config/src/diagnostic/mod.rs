//! What is told to the user about a configuration: errors and warnings with their places.

mod render;
mod suggest;

pub use render::{Location, Report};
pub use suggest::nearest;

use crate::syntax::span::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably means something else than its author thinks.
    Warning,
}

/// One message about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: one line, lower case, no full stop.
    pub summary: String,
    /// Where; `None` for what stands in no source, such as a missing directory.
    pub span: Option<Span>,
    /// What is written under the underlined range, such as `expected a string`.
    pub label: Option<String>,
    /// Further places that belong to the message, such as the first of two equal names.
    pub related: Vec<Related>,
    /// The ways out, such as `did you mean "memory"?`.
    pub help: Vec<String>,
}

/// A further place of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub span: Span,
    /// What is there.
    pub message: String,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, summary: impl Into<String>) -> Self {
        Self::new(Severity::Error, Some(span), summary.into())
    }

    /// A warning at a place.
    pub fn warning(span: Span, summary: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(span), summary.into())
    }

    /// An error that stands in no source.
    pub fn error_without_place(summary: impl Into<String>) -> Self {
        Self::new(Severity::Error, None, summary.into())
    }

    fn new(severity: Severity, span: Option<Span>, summary: String) -> Self {
        Self { severity, summary, span, label: None, related: Vec::new(), help: Vec::new() }
    }

    /// Writes `label` under the underlined range.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds a further place.
    #[must_use]
    pub fn with_related(mut self, span: Span, message: impl Into<String>) -> Self {
        self.related.push(Related { span, message: message.into() });
        self
    }

    /// Adds a way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// The messages of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// No messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The messages, in the order in which they were added.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Sorts by place, those without a place first, and drops repetitions: a second message with
    /// the same place and summary.
    pub fn settle(&mut self) {
        self.list.sort_by(|a, b| (a.span, &a.summary).cmp(&(b.span, &b.summary)));
        self.list.dedup_by(|a, b| a.span == b.span && a.summary == b.summary);
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, iter: I) {
        self.list.extend(iter);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic] }
    }
}
