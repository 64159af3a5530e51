//! What went wrong.

use kiln_config::diagnostic::{Report, Severity};
use schemars::JsonSchema;
use serde::Serialize;

/// What any verb prints when it fails.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "failure")]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) error: Fault,
}

/// An error.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Fault {
    /// What is wrong.
    pub(crate) message: String,
    /// What it comes from, nearest first.
    pub(crate) causes: Vec<String>,
    /// The way out.
    pub(crate) help: Option<String>,
    /// Messages about the configuration, in the order of their places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diagnostics: Vec<Message>,
}

/// A message about the configuration.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Message {
    /// `error` or `warning`.
    pub(crate) severity: String,
    /// What is wrong.
    pub(crate) summary: String,
    /// What was expected at the place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// The file, where it stands in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// The line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
    /// The column in characters, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<u32>,
    /// The ways out.
    pub(crate) help: Vec<String>,
}

impl Message {
    /// All messages of a report.
    pub(crate) fn all(report: &Report) -> Vec<Self> {
        let message = |diagnostic: &kiln_config::diagnostic::Diagnostic| {
            let place = report.locate(diagnostic);
            Self {
                severity: match diagnostic.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                }
                .to_owned(),
                summary: diagnostic.summary.clone(),
                detail: diagnostic.label.clone(),
                file: place.as_ref().map(|p| p.source.path().display().to_string()),
                line: place.as_ref().map(|p| p.start.line),
                column: place.as_ref().map(|p| p.start.column),
                help: diagnostic.help.clone(),
            }
        };
        report.diagnostics.iter().map(message).collect()
    }
}
