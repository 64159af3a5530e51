//! What has become of the commits of a branch: kept beside the registration, shown by `kiln follow`
//! and `kiln status`.

use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many results are kept; a bad commit is remembered as long as its result is.
const MOST_RESULTS: usize = 100;

/// What is known of a branch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The stack that it declares, once a commit has said it.
    #[serde(default)]
    pub stack: Option<StackName>,
    /// What is being done.
    #[serde(default)]
    pub phase: Phase,
    /// The newest commit that was seen.
    #[serde(default)]
    pub commit: Option<String>,
    /// When the repository answered last.
    #[serde(default)]
    pub seen_at: Option<Timestamp>,
    /// What stands in the way at present.
    #[serde(default)]
    pub trouble: Option<String>,
    /// What became of commits, newest first.
    #[serde(default)]
    pub results: Vec<CommitResult>,
}

/// What is being done about a branch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It was never looked at.
    #[default]
    Starting,
    /// The newest commit is deployed or given up; the next one is waited for.
    Waiting,
    /// A commit is checked, planned and built.
    Preparing,
    /// A commit is being rolled out.
    RollingOut,
    /// A rollback has pinned the stack.
    Pinned,
    /// The branch can't be seen or the commit not be tried for now; it goes on by itself.
    Troubled,
}

/// What became of one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommitResult {
    /// The commit.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The generation that came of it, or that has its content already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who has signed it, where signatures are required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Things worth knowing about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When it was over, RFC 3339 in UTC.
    pub at: String,
    /// How long it took from when the commit was seen, in milliseconds.
    pub duration_ms: u64,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It serves.
    Deployed,
    /// It changes nothing of the stack.
    Unchanged,
    /// It is bad, and is not tried again.
    GivenUp,
    /// A newer commit took its place before it was ready.
    Superseded,
}

impl Record {
    /// Adds a result in front.
    pub fn add(&mut self, result: CommitResult) {
        self.results.insert(0, result);
        self.results.truncate(MOST_RESULTS);
    }

    /// The result of a commit that was given up.
    pub fn given_up(&self, commit: &str) -> Option<&CommitResult> {
        let of_it = |r: &&CommitResult| r.commit == commit && r.outcome == Outcome::GivenUp;
        self.results.iter().find(of_it)
    }

    /// Forgets that a commit was given up; whether it was.
    pub fn forget(&mut self, commit: &str) -> bool {
        let before = self.results.len();
        self.results.retain(|r| r.commit != commit || r.outcome != Outcome::GivenUp);
        before != self.results.len()
    }
}

impl CommitResult {
    /// Whether what it is about served when it was written down.
    pub fn serves(&self) -> bool {
        matches!(self.outcome, Outcome::Deployed | Outcome::Unchanged)
    }

    /// What became of it, in one sentence.
    pub fn sentence(&self) -> String {
        let commit = self.commit.get(..12).unwrap_or(&self.commit);
        let generation = self.generation.map(|n| format!(" as generation {n}")).unwrap_or_default();
        match self.outcome {
            Outcome::Deployed => format!("{commit} deployed{generation}"),
            Outcome::Unchanged => format!("{commit} changes nothing of the stack"),
            Outcome::GivenUp => {
                let reason = self.reason.as_deref().unwrap_or("the reason is not known");
                format!("{commit} given up: {reason}")
            }
            Outcome::Superseded => format!("{commit} gave way to a newer commit"),
        }
    }
}

#[cfg(test)]
pub(super) fn result(commit: &str, outcome: Outcome, generation: Option<u64>) -> CommitResult {
    CommitResult {
        commit: commit.to_owned(),
        subject: String::new(),
        outcome,
        generation,
        reason: None,
        signed_by: None,
        notes: Vec::new(),
        at: String::new(),
        duration_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_commits_are_remembered_within_bounds_and_can_be_forgotten() {
        let mut record = Record::default();
        for number in 0..MOST_RESULTS + 5 {
            record.add(result(&number.to_string(), Outcome::GivenUp, None));
        }
        assert_eq!(record.results.len(), MOST_RESULTS);
        assert!(record.given_up("104").is_some() && record.given_up("4").is_none());
        assert!(record.forget("104") && !record.forget("104"));
        assert!(record.given_up("104").is_none());
    }
}
