//! Documents that the daemon gives and the command line prints with `--json`.

use kiln_engine::metrics::Family;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::follow::record::{CommitResult, Phase};

/// The state of a stack, measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The stack's name.
    pub stack: String,
    /// The active generation; null before the first is active.
    pub generation: Option<u64>,
    /// The commit that the active generation came from, or the newest one of the branch that is
    /// followed which changes nothing of it.
    pub commit: Option<String>,
    /// Whether all that is wanted is ready and is what it should be.
    pub healthy: bool,
    /// When it was measured, RFC 3339 in UTC.
    pub measured_at: String,
    /// The rollout under way.
    pub rollout: Option<Rollout>,
    /// The generation that the stack is pinned to: what follows a repository leaves it alone.
    pub pinned: Option<u64>,
    /// What keeps the daemon from looking or acting at present.
    pub trouble: Option<String>,
    /// Alarms of the last ten minutes, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
    /// The branch that the stack follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<Branch>,
    /// The components, in the order of kind and name.
    pub components: Vec<Component>,
}

/// What is measured of all stacks, for monitoring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "metrics")]
pub struct Metrics {
    /// The families, in a fixed order.
    pub families: Vec<Family>,
}

/// An alarm that was raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Alarm {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// `drift`, `storm`, `crash_loop` or `abandoned`.
    pub cause: String,
    /// The component that is concerned, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What happened, in words.
    pub what: String,
}

/// A branch that a stack follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Branch {
    /// The repository.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// The stack's directory in the repository; empty for its top.
    pub path: String,
    /// What is being done.
    pub phase: Phase,
    /// The newest commit that was seen.
    pub commit: Option<String>,
    /// What stands in the way at present.
    pub trouble: Option<String>,
    /// What became of the commit that was tried last.
    pub last: Option<CommitResult>,
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// The generation that is being rolled out.
    pub generation: u64,
    /// When it was committed.
    pub started_at: String,
    /// When it is given up.
    pub deadline: String,
}

/// One component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Component {
    /// `image`, `network`, `secret`, `server` or `endpoint`.
    pub kind: String,
    /// Its name, unique within its kind.
    pub name: String,
    /// The digest of its identity.
    pub digest: String,
    /// A server's stable address; where an endpoint listens; a network's range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What an endpoint's traffic goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How many instances there are, of a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// How the count follows what is asked, of a server with `scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// What is not as it should be about it, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Instances of a server that failed one after the other lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    /// Its instances, of servers and networks.
    pub instances: Vec<Instance>,
    /// A database's data on disk: the volume that writes go to, and those that are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
}

/// A volume of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// Its name: that of the instance that it was made for.
    pub id: String,
    /// The generation that it was made for.
    pub generation: u64,
    /// The number of its branch: of the generation that opened it, 0 for the first.
    pub branch: u64,
    /// `head` where writes go to, `end` where its branch was left, `kept` where it is the one before
    /// the head; else it is of a standby, or about to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The engine's major version that wrote it.
    pub version: u32,
    /// What it takes on disk, in bytes.
    pub used: u64,
    /// When writes went on to another, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<String>,
}

/// Instances of a server that ended, or were given up, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failures {
    /// How many in a row.
    pub in_a_row: u32,
    /// Whether they are so many that it is a crash loop, which is made more slowly.
    pub looping: bool,
    /// The last of them.
    pub instance: String,
    /// When that ended, RFC 3339 in UTC.
    pub at: String,
    /// How: a status, a signal, want of memory (OOM), or what its health check said.
    pub cause: String,
    /// When the next is made at the earliest, where that is still to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// The last lines that it wrote, oldest first.
    pub last_words: Vec<String>,
}

/// How many instances a server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replicas {
    /// How many there should be.
    pub wanted: u32,
    /// How many can serve.
    pub ready: u32,
    /// Whether the wanted number was pinned by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

/// How a server's count follows what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scale {
    /// The fewest instances.
    pub min: u32,
    /// The most instances.
    pub max: u32,
    /// What was measured last, and its target; null before the first time.
    pub because: Option<String>,
    /// The last change of the count, and what it rested on; null before the first.
    pub decided: Option<Decided>,
    /// Why the count is held, where it can't follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A change of a count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decided {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// To how many.
    pub count: u32,
    /// What was measured, and the target.
    pub because: String,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The digest that it was made from.
    pub digest: String,
    /// The generation that it was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// `starting`, `ready`, `unready` or `draining`.
    pub state: String,
    /// Its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The main process as the host sees it.
    pub pid: Option<u32>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Requests (connections, where they are not HTTP) that it is answering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// What is known of why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it has been `ready` or `unready`, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// In which way a server's root filesystem is kept from being altered: `fs-verity`,
    /// `dm-verity` or `watched`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<String>,
    /// What a database's instance does with writes: `primary` or `standby`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// How far its data goes, in bytes of the engine's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// In what it differs from what its digest says.
    pub drift: Vec<Difference>,
}

/// One difference between what something is and what its digest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What differs, such as `cgroup.memory`.
    pub what: String,
    /// What the digest says.
    pub expected: String,
    /// What was measured.
    pub found: String,
}

/// What was measured to differ in a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// The stack's name.
    pub stack: String,
    /// The generation that it was compared with.
    pub generation: Option<u64>,
    /// When it was measured.
    pub measured_at: String,
    /// The instances that differ; empty where there is no drift.
    pub drift: Vec<Drifted>,
}

/// One instance that is not what its digest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drifted {
    /// The component's kind.
    pub kind: String,
    /// The component's name.
    pub name: String,
    /// The instance.
    pub instance: String,
    /// What differs.
    pub differences: Vec<Difference>,
}
