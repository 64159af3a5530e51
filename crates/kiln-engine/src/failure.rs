//! Instances of a component that failed in a row.

use kiln_model::name::InstanceId;
use kiln_model::quantity::{Millis, Timestamp};

/// How long a crash is remembered: a later one is not in a row with it.
pub const RECENT: Millis = Millis::seconds(600);

/// Lines of a log, and characters of each, that are journalled with an end.
const LINES: usize = 10;
const CHARACTERS: usize = 240;

/// How many instances of a component failed in a row, and how the last did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How many.
    pub in_a_row: u32,
    /// When the last ended.
    pub at: Timestamp,
    /// Which that was.
    pub instance: InstanceId,
    /// How it ended.
    pub cause: String,
    /// The last lines that it wrote.
    pub last_words: Vec<String>,
}

impl Failure {
    /// One more, after those `before`.
    pub(crate) fn after(
        before: Option<&Failure>,
        at: Timestamp,
        instance: &InstanceId,
        cause: &str,
        last_words: &[String],
    ) -> Self {
        Self {
            in_a_row: before.map_or(0, |before| before.in_a_row).saturating_add(1),
            at,
            instance: instance.clone(),
            cause: cause.to_owned(),
            last_words: last_words.to_vec(),
        }
    }

    /// The same of an instance that was made then. Several that were there at once and crash are no
    /// row: one made since the crash before is.
    pub(crate) fn of_one_made_at(mut self, made_at: Timestamp, before: Option<&Failure>) -> Self {
        if let Some(before) = before.filter(|before| made_at < before.at) {
            self.in_a_row = before.in_a_row;
        }
        self
    }

    /// Whether it is not too long ago to be of interest.
    pub(crate) fn is_recent(&self, now: Timestamp) -> bool {
        now.since(self.at) < RECENT
    }
}

/// The end of some last words, short enough for the journal.
pub(crate) fn excerpt(words: &[String]) -> Vec<String> {
    let last = &words[words.len().saturating_sub(LINES)..];
    last.iter().map(|line| line.chars().take(CHARACTERS).collect()).collect()
}
