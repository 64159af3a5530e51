//! What is really there: measured, never remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::analysis::{Answers, Evidence};
use crate::data::{ObservedData, ObservedGate, ObservedVolume};
use crate::digest::Digest;
pub use crate::drift::{Aspect, Drift};
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
    /// The databases' data, in the order of components and names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ObservedVolume>,
    /// What the gateway does for databases, in the order of their components.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<ObservedGate>,
    /// What is wrong with endpoints that serve all the same, such as a certificate that cannot be
    /// renewed; for people, as nothing is decided by it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub troubles: BTreeMap<ComponentId, String>,
    /// The rollout under way.
    pub rollout: Option<RolloutRecord>,
    /// The major versions of databases in the generation that is aimed at again if the rollout is
    /// given up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions_before: BTreeMap<ComponentId, u32>,
    /// How its new instances have done so far.
    #[serde(default)]
    pub trial: Trial,
    /// Since when the newest active generation has been active.
    #[serde(default)]
    pub active_since: Option<Timestamp>,
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
    /// What it has answered to HTTP requests since the gateway first knew it.
    #[serde(default)]
    pub answers: Answers,
    /// In which way its root filesystem is kept from being altered; `None` where that is not known.
    #[serde(default)]
    pub integrity: Option<Integrity>,
    /// Its data, where it is a database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ObservedData>,
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
            Ending::Killed(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
            Ending::OutOfMemory => f.write_str("ended for want of memory (OOM)"),
            Ending::Incomplete => f.write_str("not whole"),
        }
    }
}

/// What Linux calls a signal, of those that end programs (`signal(7)`, on x86 and ARM).
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
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
    /// It could serve, failed so many probes in a row that it can't, and may yet again.
    Unready {
        /// Since when.
        since: Timestamp,
        /// The last probe's failure.
        reason: String,
    },
    /// It is of no use any more, whatever it answers: another has to take its place.
    Dead {
        /// Since when.
        since: Timestamp,
        /// The last probe's failure.
        reason: String,
    },
}

impl Verdict {
    /// The last probe's failure, where one tells why the instance can't serve.
    pub fn complaint(&self) -> Option<&str> {
        match self {
            Self::Starting { last } => last.as_deref(),
            Self::Ready { .. } => None,
            Self::Unready { reason, .. } | Self::Dead { reason, .. } => Some(reason),
        }
    }
}

/// The durable record of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The generation that is being rolled out.
    pub generation: u64,
    /// When it began.
    pub started: Timestamp,
    /// When it is given up.
    pub deadline: Timestamp,
    /// Since when all that it wants serves.
    #[serde(default)]
    pub serving: Option<Timestamp>,
    /// The step that each canary has come to.
    #[serde(default)]
    pub steps: BTreeMap<ComponentId, StepRecord>,
}

impl RolloutRecord {
    /// One that begins.
    pub fn new(generation: u64, started: Timestamp, deadline: Timestamp) -> Self {
        Self { generation, started, deadline, serving: None, steps: BTreeMap::new() }
    }
}

/// The step that a canary has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which, from 0.
    pub step: u32,
    /// Since when its share of the traffic has been in force.
    pub since: Timestamp,
}

/// How the new instances of a rollout have done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The servers whose new instances replace older ones: only these are judged.
    pub judged: BTreeSet<ComponentId>,
    /// How long all of them are watched before the change stands.
    pub watch: Millis,
    /// What was answered since shortly before the rollout began.
    pub evidence: BTreeMap<ComponentId, Evidence>,
    /// Servers of which a new instance ended by itself after it had been ready, and how.
    pub fallen: BTreeMap<ComponentId, String>,
    /// What came of the checks that are asked besides.
    pub checks: BTreeMap<ComponentId, CheckRecord>,
}

/// What came of a server's check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// When it last passed.
    pub passed: Option<Timestamp>,
    /// Why it did not pass, the last time.
    pub failure: Option<String>,
}

/// How often a component's instances had to be made lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How many were made in the last minute.
    pub in_last_minute: u32,
    /// When the last one was made.
    pub last_made: Timestamp,
    /// How many in a row ended, or were given up, without ever having been ready.
    pub never_ready: u32,
    /// When and how the last of those ended.
    pub last_failure: Option<(Timestamp, String)>,
    /// How many in a row ended by themselves, each within ten minutes of the one before, after
    /// they had been ready.
    pub crashes: u32,
    /// When and how the last of those ended.
    pub last_crash: Option<(Timestamp, String)>,
}

/// Crashes in a row from which on they are a loop.
pub const CRASH_LOOP: u32 = 3;

impl Pace {
    /// How many instances in a row have failed and how the last did, where that is a loop.
    pub fn crash_loop(&self) -> Option<(u32, &str)> {
        let failed = self.last_failure.as_ref().map(|(_, cause)| (self.never_ready, &**cause));
        let crashed = self.last_crash.as_ref().map(|(_, cause)| (self.crashes, &**cause));
        [failed, crashed].into_iter().flatten().find(|(in_a_row, _)| *in_a_row >= CRASH_LOOP)
    }

    /// When the next instance may be made. After failures in a row of instances that never were
    /// ready: 100 ms after the first, twice as long after each further, at most 10 s. After
    /// crashes of instances that were: at once, and in a loop the same pauses up to 1 s, for each
    /// instance serves while it lives.
    pub fn not_before(&self) -> Timestamp {
        let failed = resume(self.last_failure.as_ref(), self.never_ready, Millis::seconds(10));
        let looped = (self.crashes + 1).saturating_sub(CRASH_LOOP);
        failed.max(resume(self.last_crash.as_ref(), looped, Millis::seconds(1)))
    }
}

/// The end of the pause after so many ends in a row, of which `last` was the last.
fn resume(last: Option<&(Timestamp, String)>, in_a_row: u32, longest: Millis) -> Timestamp {
    match (last, in_a_row) {
        (Some((at, _)), 1..) => at.after(Millis((100 << (in_a_row - 1).min(7)).min(longest.0))),
        _ => Timestamp(0),
    }
}

/// Signals that a program brings on itself: ILL, TRAP, ABRT, BUS, FPE, SEGV and SYS.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

impl ObservedInstance {
    /// Whether its program runs.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether it ended by itself: not at anybody's request, and not by a signal that nobody but
    /// the kernel or another program sends.
    pub fn has_crashed(&self) -> bool {
        let Phase::Ended { cause } = &self.phase else { return false };
        let own = match cause {
            Ending::Exited(_) | Ending::OutOfMemory => true,
            Ending::Killed(signal) => FAULTS.contains(signal),
            Ending::Incomplete => false,
        };
        own && self.draining_since.is_none()
    }

    /// Whether it was found to be kept from running.
    pub fn is_stopped(&self) -> bool {
        self.drift.iter().any(|drift| drift.what == Aspect::Stopped)
    }

    /// Whether it runs and its health check says that it can serve.
    pub fn is_ready(&self) -> bool {
        self.is_running() && matches!(self.health, Verdict::Ready { .. })
    }
}
