//! What is really there: measured, never remembered.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{ComponentId, InstanceId};
use crate::quantity::{Millis, Timestamp};
use crate::route::RouteTable;
use crate::spec::network::NetworkIdentity;
use crate::spec::server::Connection;
use crate::trust::Integrity;

/// The state of one stack on one target at one instant, with every age and count that
/// [`plan`](crate::plan::plan) needs: it reads no clock of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// When it was measured.
    pub at: Timestamp,
    /// The network instances, in the order of their ids.
    pub networks: Vec<ObservedNetwork>,
    /// The server instances, in the order of their ids.
    pub instances: Vec<ObservedInstance>,
    /// What the gateway routes for this stack; `None` where no gateway runs.
    pub table: Option<RouteTable>,
    /// What is wrong with endpoints that serve all the same, such as a certificate that cannot be
    /// renewed; for people, as nothing is decided by it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub troubles: BTreeMap<ComponentId, String>,
    /// The rollout under way.
    pub rollout: Option<RolloutRecord>,
    /// What has been made lately, by component.
    pub pace: BTreeMap<ComponentId, Pace>,
    /// Wanted counts that stand in for `replicas`: scaling's decisions and pins by hand.
    pub wanted: BTreeMap<ComponentId, u32>,
}

/// A network instance that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNetwork {
    /// Its id.
    pub id: InstanceId,
    /// The component that it is an instance of.
    pub component: ComponentId,
    /// The digest that it was made from.
    pub digest: Digest,
    /// What it is.
    pub identity: NetworkIdentity,
    /// In what it differs from what its digest says.
    pub drift: Vec<Drift>,
}

/// A server instance that exists, or of which something is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedInstance {
    /// Its id.
    pub id: InstanceId,
    /// The component that it is an instance of.
    pub component: ComponentId,
    /// The digest that it was made from.
    pub digest: Digest,
    /// The generation that it was made for.
    pub generation: u64,
    /// The network instance that it is in.
    pub network: InstanceId,
    /// Its address there.
    pub address: Ipv4Addr,
    /// What it may connect to.
    pub connects: Vec<Connection>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The main process as the host sees it.
    pub pid: Option<u32>,
    /// Whether its program runs.
    pub phase: Phase,
    /// What its health check says.
    pub health: Verdict,
    /// Since when it has been draining.
    pub draining_since: Option<Timestamp>,
    /// Requests (connections, where they are not HTTP) that it is answering.
    pub in_flight: u32,
    /// In which way its root filesystem is kept from being altered; `None` where that is not known.
    #[serde(default)]
    pub integrity: Option<Integrity>,
    /// In what it differs from what its digest says.
    pub drift: Vec<Drift>,
}

/// Whether an instance's program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It runs.
    Running,
    /// It has ended, or was never whole.
    Ended {
        /// How.
        cause: Ending,
    },
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// For want of memory.
    OutOfMemory,
    /// It is half made, or nobody saw its end.
    Incomplete,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(status) => write!(f, "exited with status {status}"),
            Ending::Killed(signal) => write!(f, "killed by signal {signal}"),
            Ending::OutOfMemory => f.write_str("ended for want of memory"),
            Ending::Incomplete => f.write_str("not whole"),
        }
    }
}

/// What a health check says of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not ready yet.
    Starting {
        /// The last probe's failure.
        last: Option<String>,
    },
    /// It can serve.
    Ready {
        /// Since when.
        since: Timestamp,
    },
    /// It could serve, and failed so many probes in a row that it can't.
    Unready {
        /// Since when.
        since: Timestamp,
        /// The last probe's failure.
        reason: String,
    },
}

/// One difference between what something is and what its digest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What differs, such as `cgroup.memory` or `nftables`.
    pub what: String,
    /// What the digest says.
    pub expected: String,
    /// What was measured.
    pub found: String,
}

/// The durable record of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The generation that is being rolled out.
    pub generation: u64,
    /// When it was committed.
    pub started: Timestamp,
    /// When it is given up.
    pub deadline: Timestamp,
}

/// How often a component's instances had to be made lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How many were made in the last minute.
    pub in_last_minute: u32,
    /// When the last one was made.
    pub last_made: Timestamp,
    /// How many in a row ended without ever having been ready.
    pub never_ready: u32,
    /// When and how the last of those ended.
    pub last_failure: Option<(Timestamp, String)>,
}

impl Pace {
    /// When the next instance may be made after failures in a row: 100 ms after the first,
    /// twice as long after each further, at most 10 s.
    pub fn not_before(&self) -> Timestamp {
        match (&self.last_failure, self.never_ready) {
            (Some((at, _)), failures @ 1..) => {
                at.after(Millis(100_u64.saturating_mul(1 << (failures - 1).min(7)).min(10_000)))
            }
            _ => Timestamp(0),
        }
    }
}

impl ObservedInstance {
    /// Whether its program runs.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether it runs and its health check says that it can serve.
    pub fn is_ready(&self) -> bool {
        self.is_running() && matches!(self.health, Verdict::Ready { .. })
    }
}
