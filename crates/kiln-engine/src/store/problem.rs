//! What can be wrong with a store, and how it is told.

use std::fmt;

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// An entry of the journal is not what was written and signed.
    Entry {
        /// Its number.
        entry: u64,
    },
    /// An entry stands in another's place.
    Moved {
        /// Where it stands.
        entry: u64,
        /// Where it was written.
        was: u64,
    },
    /// Entries are missing among the others.
    Removed {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The last entries are missing: the journal was truncated or put back to an older copy.
    Truncated {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// An entry was signed here but does not follow the one before it.
    Detached {
        /// Its number.
        entry: u64,
    },
    /// The journal went another way than the one that is known of.
    Forked {
        /// The last entry that both have.
        entry: u64,
    },
    /// The file that says how far the journal reaches.
    Head {
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing was signed with the key that is there.
    Key,
    /// A generation.
    Generation {
        /// The stack.
        stack: String,
        /// Its number.
        number: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The database.
    Database {
        /// What is wrong with it.
        problem: String,
    },
}

impl Problem {
    /// The entry after which a chain is broken because of this.
    pub(super) fn entry_at_fault(&self) -> Option<u64> {
        match self {
            Self::Entry { entry } | Self::Moved { entry, .. } => Some(*entry),
            _ => None,
        }
    }

    /// A word for it: `altered`, `reordered`, `removed`, `truncated`, `detached`, `forked`,
    /// `head`, `key`, `generation`, `database`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Entry { .. } => "altered",
            Self::Moved { .. } => "reordered",
            Self::Removed { .. } => "removed",
            Self::Truncated { .. } => "truncated",
            Self::Detached { .. } => "detached",
            Self::Forked { .. } => "forked",
            Self::Head { .. } => "head",
            Self::Key => "key",
            Self::Generation { .. } => "generation",
            Self::Database { .. } => "database",
        }
    }

    /// The entries that it is about, from and to.
    pub fn entries(&self) -> Option<(u64, u64)> {
        match self {
            Self::Entry { entry }
            | Self::Moved { entry, .. }
            | Self::Detached { entry }
            | Self::Forked { entry } => Some((*entry, *entry)),
            Self::Removed { from, to } | Self::Truncated { from, to } => Some((*from, *to)),
            Self::Head { .. } | Self::Key | Self::Generation { .. } | Self::Database { .. } => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry { entry } => {
                write!(f, "entry {entry} of the journal is not what was written and signed")
            }
            Self::Moved { entry, was } => {
                write!(f, "entry {was} of the journal stands in the place of entry {entry}")
            }
            Self::Removed { from, to } if from == to => {
                write!(f, "entry {from} of the journal was removed")
            }
            Self::Removed { from, to } => {
                write!(f, "entries {from} to {to} of the journal were removed")
            }
            Self::Truncated { from, to } => write!(
                f,
                "the journal ends before entry {from} and had {to}: it was truncated or put back \
                 to an older copy"
            ),
            Self::Detached { entry } => {
                write!(f, "entry {entry} of the journal does not follow the one before it")
            }
            Self::Forked { entry } => write!(
                f,
                "entry {entry} of the journal is another than the one that is known of: it was put \
                 back to an older copy and went on from there"
            ),
            Self::Head { problem } => {
                write!(f, "the file `head`, which says how far the journal reaches: {problem}")
            }
            Self::Key => {
                f.write_str("the file `key` is gone, or is not the one that has signed the journal")
            }
            Self::Generation { stack, number, problem } => {
                write!(f, "generation {number} of {stack}: {problem}")
            }
            Self::Database { problem } => write!(f, "the database `store.db`: {problem}"),
        }
    }
}

/// The first few problems in one line.
pub(super) fn list(problems: &[Problem]) -> String {
    const SHOWN: usize = 3;
    let mut shown: Vec<String> = problems.iter().take(SHOWN).map(ToString::to_string).collect();
    if problems.len() > SHOWN {
        shown.push(format!("and {} more", problems.len() - SHOWN));
    }
    shown.join("; ")
}
