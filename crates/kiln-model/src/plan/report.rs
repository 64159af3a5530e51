//! Why each step is taken, what is being waited for, and how far it has come.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::generation::Generation;
use crate::name::{ComponentId, InstanceId};
use crate::observed::{Drift, Ending, Observed, Verdict};
use crate::quantity::Timestamp;

use super::fleet::{Fleet, Fleets, patience};
use super::networks::Networks;
use super::trial::{self, Watch};
use super::{Action, Step, database, earliest};

/// Why a step is taken, or why one can't be taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There is none, and one is wanted.
    Missing,
    /// What there is is not what the generation says.
    NotAsDeclared,
    /// Instances of another digest are to be replaced.
    Replaces {
        /// The digest of those.
        from: Digest,
    },
    /// Another instance has to go.
    InPlaceOf {
        /// Which.
        instance: InstanceId,
        /// Why it has to go.
        why: Box<Reason>,
    },
    /// New instances have taken over.
    Replaced,
    /// There are more than wanted.
    TooMany,
    /// The generation does not name it.
    NotWanted,
    /// Its program has ended.
    Ended {
        /// How.
        cause: Ending,
    },
    /// It is on its way out.
    Draining,
    /// It is not what its digest says.
    Drifted {
        /// The first difference.
        drift: Drift,
    },
    /// Its health check failed too often in a row.
    Unready {
        /// The last failure.
        last: String,
    },
    /// It was not ready in time.
    NeverReady {
        /// The last failure.
        last: Option<String>,
    },
    /// Who serves has changed.
    Routing,
    /// What it talks to is not ready yet.
    WaitsForOthers,
    /// The instances before it failed; there is a pause before the next.
    BackingOff,
    /// One after the other ends soon.
    CrashLoop {
        /// How many in a row.
        times: u32,
        /// How the last ended.
        last: String,
    },
    /// Too many have been made within a minute.
    Storm,
    /// The network has no free address.
    NoAddress,
    /// The generation has no content for the image.
    ImageNotBuilt,
    /// New instances have a share of the traffic, and are judged by how they do.
    Canary {
        /// Which step, from 1.
        step: u32,
        /// How many there are.
        of: u32,
        /// The share in percent.
        weight: u8,
    },
    /// Those before finish what they have begun; what is asked meanwhile is held.
    HandingOver,
    /// A standby receives the data.
    CatchingUp {
        /// How many bytes of the log it lacks; `None` where that is not known.
        behind: Option<u64>,
    },
    /// Writes go over from one instance to another, and clients are held meanwhile.
    SwitchingOver,
    /// What clients have under way takes longer than they may be held; it is tried again.
    TransactionsGoOn,
    /// The one that took writes is gone, and the data is recovered.
    Recovering,
    /// An earlier state of the data is made ready, with which a branch is opened.
    Restoring {
        /// The branch's number.
        branch: u64,
    },
    /// The data goes on in another branch.
    OtherBranch {
        /// Its number.
        branch: u64,
    },
    /// The data was written by another major version of the engine.
    OtherVersion {
        /// Which.
        data: u32,
        /// What is wanted.
        wanted: u32,
    },
    /// New instances do worse than those before.
    Worse {
        /// In what.
        what: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Missing => f.write_str("it is missing"),
            Reason::NotAsDeclared => f.write_str("what exists is not what is declared"),
            Reason::Replaces { from } => write!(f, "it replaces {}", from.short(12)),
            Reason::InPlaceOf { instance, why } => write!(f, "in place of {instance}: {why}"),
            Reason::Replaced => f.write_str("new instances have taken over"),
            Reason::TooMany => f.write_str("there are more than wanted"),
            Reason::NotWanted => f.write_str("it is no longer declared"),
            Reason::Ended { cause } => write!(f, "{cause}"),
            Reason::Draining => f.write_str("it has finished what it had begun"),
            Reason::Drifted { drift } => {
                write!(f, "{} is {}, not {}", drift.what, drift.found, drift.expected)
            }
            Reason::Unready { last } => write!(f, "unhealthy: {last}"),
            Reason::NeverReady { last: Some(last) } => write!(f, "never ready: {last}"),
            Reason::NeverReady { last: None } => f.write_str("never ready"),
            Reason::Routing => f.write_str("who serves has changed"),
            Reason::WaitsForOthers => f.write_str("what it connects to is not ready yet"),
            Reason::BackingOff => f.write_str("the ones before it failed; pausing"),
            Reason::CrashLoop { times, last } => {
                write!(f, "crash loop: {times} in a row, the last one {last}")
            }
            Reason::Storm => f.write_str("too many replacements within a minute; slowing down"),
            Reason::NoAddress => f.write_str("its network has no free address"),
            Reason::ImageNotBuilt => f.write_str("its image has not been built"),
            Reason::Canary { step, of, weight } => {
                write!(f, "step {step} of {of}: {weight} % of the traffic goes to new instances")
            }
            Reason::HandingOver => {
                f.write_str("requests are held until those before have answered theirs")
            }
            Reason::CatchingUp { behind: Some(bytes) } => {
                write!(f, "a standby receives the data and is {bytes} bytes behind")
            }
            Reason::CatchingUp { behind: None } => f.write_str("a standby receives the data"),
            Reason::SwitchingOver => f.write_str("writes go over to another instance"),
            Reason::TransactionsGoOn => f.write_str(
                "transactions take longer than clients may be held; trying again in a moment",
            ),
            Reason::Restoring { branch } => {
                write!(f, "the data is made ready as it was, as branch {branch}")
            }
            Reason::OtherBranch { branch } => write!(f, "the data goes on in branch {branch}"),
            Reason::Recovering => f.write_str("the data is recovered in a new instance"),
            Reason::OtherVersion { data, wanted } => {
                write!(f, "its data is of version {data}, and {wanted} is wanted")
            }
            Reason::Worse { what } => f.write_str(what),
        }
    }
}

/// A server that does not have all its instances ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The server.
    pub component: ComponentId,
    /// How many instances are wanted.
    pub wanted: u32,
    /// How many of them are ready.
    pub ready: u32,
    /// How many of them are starting.
    pub starting: u32,
    /// What is known of the hindrance.
    pub why: Option<Reason>,
}

/// How far the way to the generation has been gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Something is to be done or waited for.
    Progressing,
    /// All that is wanted is ready and has the traffic; what it replaced is on its way out.
    Ready,
    /// What is there is the generation, and nothing else.
    Converged,
    /// The rollout's deadline has passed and not everything is ready.
    Expired,
    /// The rollout's new instances do worse than those before; who and why is in
    /// [`Report::waiting`].
    Worse,
}

/// Something that a rollout has come to, from which time is counted: it is to be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// A canary's share of the traffic is in force.
    Step {
        /// The server.
        component: ComponentId,
        /// Which step, from 0.
        step: u32,
    },
    /// All that the generation wants serves.
    Serving,
}

/// What a plan rests on.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How far it has come.
    pub outcome: Outcome,
    /// The servers that are not all ready.
    pub waiting: Vec<Waiting>,
    /// When to plan again although nothing is seen to change.
    pub wake_at: Option<Timestamp>,
    /// What has been reached and is not written down yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<Milestone>,
    /// Whether the generation before cannot be had any more, so that the rollout must not be called
    /// off: data has gone over to a newer major version of its engine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub past_return: bool,
}

pub(super) fn report(
    desired: &Generation,
    observed: &Observed,
    networks: &Networks,
    fleets: &Fleets,
    watch: &Watch,
    steps: &[Step],
) -> Report {
    let ailments = ailments(observed);
    let why = |id: &ComponentId, fleet: &Fleet| {
        let held = || fleet.held.as_ref().map(|h| h.0.clone());
        if held() == Some(Reason::Storm) {
            return held();
        }
        hindrance(observed, &ailments, id).or_else(held).or_else(|| fleet.pending.clone())
    };
    let waiting = fleets.servers().filter(|(_, fleet)| !fleet.is_through());
    let waiting: Vec<Waiting> =
        waiting.filter_map(|(id, fleet)| fleets.waiting(id, why(id, fleet))).collect();
    let past_return = database::is_past_return(desired, observed);
    let mut worse = trial::worse(desired, observed, fleets);
    if observed.rollout.is_some() {
        let hopeless = fleets.servers().filter_map(|(id, fleet)| {
            let why = fleet.pending.clone().filter(|why| matches!(why, Reason::Worse { .. }))?;
            fleets.waiting(id, Some(why))
        });
        worse.extend(hopeless);
    }
    if past_return {
        worse.clear();
    }
    let whole = waiting.is_empty() && networks.creations().next().is_none();
    let routed = !steps.iter().any(|s| matches!(s.action, Action::Route(_)));
    let expired = observed.rollout.as_ref().is_some_and(|r| observed.at >= r.deadline);
    let watched = *watch == Watch::Over;
    let outcome = if past_return && expired {
        // There is no other generation to go back to: what is missing is made as ever.
        Outcome::Ready
    } else if !worse.is_empty() {
        Outcome::Worse
    } else if whole && watched && steps.is_empty() && !fleets.any_retired() {
        Outcome::Converged
    } else if whole && watched && routed {
        Outcome::Ready
    } else if expired && !whole {
        Outcome::Expired
    } else {
        Outcome::Progressing
    };
    let mut milestones = fleets.milestones.clone();
    milestones.extend(trial::milestone(watch, whole && routed));
    let waiting = if worse.is_empty() { waiting } else { worse };
    let wake_at = wake_at(desired, observed, fleets, watch);
    Report { outcome, waiting, wake_at, milestones, past_return }
}

/// What is known of why `server` does not get ready.
fn hindrance(
    observed: &Observed,
    ailments: &BTreeMap<&ComponentId, Reason>,
    server: &ComponentId,
) -> Option<Reason> {
    let pace = observed.pace.get(server);
    if let Some((times, last)) = pace.and_then(|pace| pace.crash_loop()) {
        return Some(Reason::CrashLoop { times, last: last.to_owned() });
    }
    match pace.and_then(|p| p.last_failure.as_ref()) {
        Some((_, failure)) => Some(Reason::NeverReady { last: Some(failure.clone()) }),
        None => ailments.get(server).cloned(),
    }
}

/// For each component, what ails the first of its instances that is not well.
fn ailments(observed: &Observed) -> BTreeMap<&ComponentId, Reason> {
    let mut ailments = BTreeMap::new();
    for instance in &observed.instances {
        let reason = match &instance.health {
            Verdict::Starting { last: Some(last) } => {
                Reason::NeverReady { last: Some(last.clone()) }
            }
            Verdict::Unready { reason, .. } | Verdict::Dead { reason, .. } => {
                Reason::Unready { last: reason.clone() }
            }
            Verdict::Starting { last: None } | Verdict::Ready { .. } => continue,
        };
        ailments.entry(&instance.component).or_insert(reason);
    }
    ailments
}

fn wake_at(
    desired: &Generation,
    observed: &Observed,
    fleets: &Fleets,
    watch: &Watch,
) -> Option<Timestamp> {
    let rollout = observed.rollout.iter().map(|r| r.deadline);
    let held = fleets.servers().filter_map(|(_, f)| f.held.as_ref().and_then(|h| h.1));
    let unproved = observed.instances.iter().filter(|i| i.is_running()).filter_map(|i| {
        let server = desired.content.components.get(&i.component)?.spec.as_server()?;
        match &i.health {
            Verdict::Starting { .. } => Some(i.created_at.after(server.policy.rollout.deadline)),
            _ => patience(i, server),
        }
    });
    let stages = fleets.servers().filter_map(|(_, f)| f.wake_at);
    let watched = match watch {
        Watch::Until(until) => Some(*until),
        Watch::Over | Watch::Due => None,
    };
    let known = rollout.chain(held).chain(unproved).chain(stages);
    earliest(observed.at, known.chain(watched).chain(fleets.drain_until))
}
