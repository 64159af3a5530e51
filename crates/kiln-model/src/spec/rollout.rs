//! How the instances of a server are replaced, and how it is told that the new ones are worse.

use serde::{Deserialize, Serialize};

use crate::quantity::Millis;
use crate::spec::server::Probe;

/// How instances are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// In which way.
    pub strategy: Strategy,
    /// How long until all new instances must serve; else the change is aborted.
    pub deadline: Millis,
    /// How long the instances that were replaced are kept, out of rotation, once the change
    /// stands: a rollback in that time starts nothing. For [`Strategy::BlueGreen`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keep: Millis,
    /// How long the new instances are watched under all of the traffic before the change
    /// stands. Not waited for where nobody asks anything.
    #[serde(default = "default_watch")]
    pub watch: Millis,
    /// When the change is called off although all is healthy.
    #[serde(default)]
    pub analysis: Analysis,
    /// Whether instances before and after the change may serve at the same time.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub overlap: bool,
}

/// In which way instances are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A few at a time.
    Rolling {
        /// How many more than wanted may exist while replacing; 0 only with `unavailable`.
        surge: u32,
        /// How many fewer than wanted may be ready while replacing.
        #[serde(default, skip_serializing_if = "is_none")]
        unavailable: u32,
    },
    /// All new ones beside all old ones, then one switch.
    BlueGreen,
    /// The new ones get a share of the traffic that grows in steps, each judged before the
    /// next; the old ones stay until the last one is passed.
    Canary {
        /// At least one, by growing weight.
        steps: Vec<CanaryStep>,
    },
}

/// One step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The share of requests that new instances get, in percent, 1 to 100. So is the share of
    /// new instances, rounded up.
    pub weight: u8,
    /// How long it is kept before it is judged.
    pub hold: Millis,
}

impl CanaryStep {
    /// How many new instances it needs where `wanted` are wanted in the end: at least 1.
    pub fn instances(self, wanted: u32) -> u32 {
        let share = u64::from(wanted) * u64::from(self.weight);
        u32::try_from(share.div_ceil(100)).unwrap_or(wanted).clamp(wanted.min(1), wanted)
    }
}

/// When a change is called off although all is healthy: new instances are compared with those
/// before, by what the gateway saw of their answers to HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// By how many of a thousand requests more of them may fail (status 5xx, or no answer);
    /// 1000 or more: never called off for that.
    pub errors: u32,
    /// How many times as long as before an answer may take, in thousandths; 0: never called off
    /// for that.
    pub latency: u32,
    /// Which answer is compared: the one that so many of a thousand are faster than.
    pub quantile: u32,
    /// What it must take longer by, besides.
    pub beyond: Millis,
    /// Requests, on each side, below which nothing is compared.
    pub requests: u32,
    /// What is asked besides, of each new instance or by a program on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

impl Default for Analysis {
    /// Called off when 1 % more requests fail, or the median answer takes three times as long
    /// and 100 ms longer, judged by at least 20 requests.
    fn default() -> Self {
        Self {
            errors: 10,
            latency: 3000,
            quantile: 500,
            beyond: Millis(100),
            requests: 20,
            check: None,
        }
    }
}

/// What is asked besides while a change is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub ask: Ask,
    /// From one time to the next.
    pub every: Millis,
    /// How long it may take.
    pub timeout: Millis,
    /// Whom a program runs as, a name or number of the host; without it as nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Whom a check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Each new instance that is ready.
    Instance(Probe),
    /// A program on the host and its arguments; it passes when it ends with status 0.
    Command(Vec<String>),
}

/// How long new instances are watched where nothing is said.
pub const fn default_watch() -> Millis {
    Millis(1000)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(span: &Millis) -> bool {
    span.0 == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

fn yes() -> bool {
    true
}

impl Rollout {
    /// A few at a time, one more than wanted; given up after `deadline`.
    pub fn rolling(deadline: Millis) -> Self {
        Self {
            strategy: Strategy::Rolling { surge: 1, unavailable: 0 },
            deadline,
            keep: Millis(0),
            watch: default_watch(),
            analysis: Analysis::default(),
            overlap: true,
        }
    }

    /// How long its steps are held together: no change by it stands earlier.
    pub fn held(&self) -> Millis {
        match &self.strategy {
            Strategy::Canary { steps } => {
                Millis(steps.iter().fold(0, |sum, step| sum.saturating_add(step.hold.0)))
            }
            Strategy::Rolling { .. } | Strategy::BlueGreen => Millis(0),
        }
    }

    /// How many instances more than wanted may exist while replacing `wanted` of them.
    pub fn surplus(&self, wanted: u32) -> u32 {
        match &self.strategy {
            _ if !self.overlap => wanted,
            Strategy::Rolling { surge, .. } => *surge,
            Strategy::BlueGreen | Strategy::Canary { .. } => wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_an_instance_and_never_more_than_wanted() {
        let step = |weight| CanaryStep { weight, hold: Millis(0) };
        let counts = [(1, 1), (10, 1), (10, 3), (10, 20), (50, 3), (100, 3), (50, 0)]
            .map(|(weight, wanted)| step(weight).instances(wanted));
        assert_eq!(counts, [1, 1, 1, 2, 2, 3, 0]);
    }

    #[test]
    fn what_was_stored_before_is_read() {
        let text = r#"{"strategy":{"rolling":{"surge":2}},"deadline":1000}"#;
        let rollout: Rollout = serde_json::from_str(text).unwrap();
        assert_eq!(rollout.strategy, Strategy::Rolling { surge: 2, unavailable: 0 });
        assert!(rollout.overlap);
        let text = r#"{"strategy":"blue_green","deadline":1000}"#;
        assert_eq!(serde_json::from_str::<Rollout>(text).unwrap().strategy, Strategy::BlueGreen);
    }
}
