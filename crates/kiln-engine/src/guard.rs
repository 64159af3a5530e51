//! What a target's guard says of itself: by what it learns of changes, and what that costs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// By what a guard learns that something may have changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Programs that are executed, and processes that are traced: the process connector.
    Processes,
    /// Writes to control groups: fanotify.
    Cgroups,
    /// Writes to settings of networks: fanotify on /proc.
    Settings,
    /// Mount tables: they are polled.
    Mounts,
    /// Interfaces, addresses, routes and packet filters: netlink, in each namespace.
    Networks,
    /// Whether main processes run: they are looked at several times a second.
    Standstill,
    /// The sweep over everything, which needs nothing to be told.
    Sweep,
}

impl Source {
    /// All there are.
    pub const ALL: &[Self] = &[
        Self::Processes,
        Self::Cgroups,
        Self::Settings,
        Self::Mounts,
        Self::Networks,
        Self::Standstill,
        Self::Sweep,
    ];
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listening {
    /// Which.
    pub source: Source,
    /// Whether this kernel grants it.
    pub active: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Events so far, since the daemon has been started.
    pub events: u64,
    /// Instances that were found to have drifted by it.
    pub found: u64,
}

/// What a guard says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "guard")]
pub struct GuardReport {
    /// Instances that are watched.
    pub instances: usize,
    /// Networks that are watched.
    pub networks: usize,
    /// By what it learns of changes.
    pub sources: Vec<Listening>,
    /// Programs that were executed too fast to be looked at one by one; the sweep has come sooner
    /// for them.
    pub skipped: u64,
    /// Rounds of the sweep so far.
    pub rounds: u64,
    /// How long the last round took, from its beginning to the next one's: what no event tells of
    /// is found within that. Milliseconds.
    pub round_ms: Option<u64>,
    /// When it ended, milliseconds ago.
    pub last_round_ms_ago: Option<u64>,
    /// Processor time used so far, milliseconds.
    pub cpu_ms: u64,
    /// Share of one processor of late, up to a minute, in percent.
    pub cpu_percent: f64,
}
