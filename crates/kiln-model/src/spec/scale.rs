//! How the number of a server's instances follows what is asked of it.

use serde::{Deserialize, Serialize};

use crate::quantity::{Amount, Bytes, MilliCpu, Millis};

/// Bounds and targets of a server's count; see [`crate::scaling`] for what is made of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The fewest instances. With 0 the server sleeps while nobody asks for it, and what asks
    /// is held at the gateway until the first instance serves.
    pub min: u32,
    /// The most instances; at least 1, and not below `min`.
    pub max: u32,
    /// What one instance is to have; at least one target is set.
    pub target: Targets,
    /// How long a smaller count must have been enough before instances go.
    pub down_after: Millis,
    /// How far beyond its targets a server may be before its count follows, in per cent.
    pub tolerance: u32,
}

/// What one instance is to have. Of several targets, the one that wants the most instances counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// Requests (connections, where they are not HTTP) that arrive each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<Amount>,
    /// Requests and connections that are being answered, or wait for it, at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Amount>,
    /// The time until the head of a response that 95 of 100 requests stay below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Millis>,
    /// Processor time in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCpu>,
    /// Memory in use, without what could be dropped of files read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// A share of the number that a program prints.
    #[serde(flatten)]
    pub number: Option<NumberTarget>,
}

/// A number that a program of this machine prints, such as the length of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberTarget {
    /// The program's absolute path and its arguments; no shell is between.
    pub command: Vec<String>,
    /// How much of the number one instance takes.
    pub value: Amount,
    /// Whom it runs as, a name or number of the host; without it as nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Scale {
    /// Whether the server has no instance while nobody asks for it.
    pub fn sleeps(&self) -> bool {
        self.min == 0
    }

    /// The count that is within the bounds and nearest to `count`.
    pub fn clamp(&self, count: u32) -> u32 {
        count.min(self.max).max(self.min)
    }
}
