//! Branches that are followed, as the daemon tells of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::follow::record::{CommitResult, Phase, Record};
use crate::follow::registry::Follow;

/// A branch that is followed, and what has become of its commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Following {
    /// What tells it from others: twelve hexadecimal digits.
    pub id: String,
    /// The stack that it declares; null before a commit has said it.
    pub stack: Option<String>,
    /// The repository.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// The stack's directory in the repository; empty for its top.
    pub path: String,
    /// From one look to the next, in milliseconds.
    pub every_ms: u64,
    /// Whether commits that are not signed are given up.
    pub require_signed: bool,
    /// Where webhooks are listened for.
    pub webhook: Option<String>,
    /// What is being done.
    pub phase: Phase,
    /// The newest commit that was seen.
    pub commit: Option<String>,
    /// When the repository answered last, RFC 3339 in UTC.
    pub seen_at: Option<String>,
    /// What stands in the way at present.
    pub trouble: Option<String>,
    /// What became of commits, newest first; the last hundred.
    pub results: Vec<CommitResult>,
}

impl Following {
    /// What was registered, with what has become of it.
    pub fn of(id: &str, follow: &Follow, record: Record) -> Self {
        Self {
            id: id.to_owned(),
            stack: record.stack.map(|stack| stack.to_string()),
            url: follow.url.clone(),
            branch: follow.branch.clone(),
            path: follow.path.clone(),
            every_ms: follow.every.0,
            require_signed: follow.signers.is_some(),
            webhook: follow.webhook.as_ref().map(|hook| hook.listen.to_string()),
            phase: record.phase,
            commit: record.commit,
            seen_at: record.seen_at.map(|at| at.to_string()),
            trouble: record.trouble,
            results: record.results,
        }
    }

    /// Whether a person means this one: by its id, its stack or its address.
    pub fn is_meant(&self, by: &str) -> bool {
        self.id == by || self.stack.as_deref() == Some(by) || self.url == by
    }
}
