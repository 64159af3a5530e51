//! Alarms: what a person should hear of at once, and whom a stack tells.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::ComponentId;

/// Whom a stack tells of alarms, besides whoever looks at its events and its status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// A URL, `http` or `https`, that gets each as a JSON document by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// A program of the host and its arguments, which gets each as a JSON document on its standard
    /// input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The user of the host that the program runs as; nobody where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Hooks {
    /// Whether nobody is told.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an alarm is raised for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Something is not what it was made as.
    Drift,
    /// Too many replacements of one component within a minute: they are slowed down.
    Storm,
    /// Instances of one component end soon, one after the other.
    CrashLoop,
    /// A rollout was given up.
    Abandoned,
    /// The store is not what was written.
    Tampered,
    /// A database is not backed up as it should be, or a backup is damaged.
    Backup,
}

impl Cause {
    /// Its name in documents, which never changes.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Drift => "drift",
            Cause::Storm => "storm",
            Cause::CrashLoop => "crash_loop",
            Cause::Abandoned => "abandoned",
            Cause::Tampered => "tampered",
            Cause::Backup => "backup",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Drift => "drift",
            Cause::Storm => "storm",
            Cause::CrashLoop => "crash loop",
            Cause::Abandoned => "rollout given up",
            Cause::Tampered => "store tampered with",
            Cause::Backup => "backup",
        })
    }
}

/// One alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What it is raised for.
    pub cause: Cause,
    /// The component that is concerned, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
    /// What happened, in words.
    pub what: String,
}
