//! The journal: what has been decided and what has happened to a stack.
//!
//! Events are stored, status is derived from them by one function that refuses what can't be.
//! A generation is never altered: its fate stands here, first `committed`, then `active` or
//! `abandoned`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use kiln_model::alarm::Alarm;
use kiln_model::digest::Digest;
use kiln_model::drift::Drift;
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::observed::{Pace, RolloutRecord, StepRecord};
use kiln_model::quantity::{Millis, Timestamp};

use crate::actor::Actor;
use crate::alarm::Alarms;
use crate::failure::Failure;

/// One entry of a stack's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// An entry as it stands in the chain of all journals of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1, among the entries of all stacks.
    pub number: u64,
    /// The stack; empty for what belongs to none.
    pub stack: String,
    /// The entry.
    pub entry: Entry,
    /// Who stands behind it.
    pub by: Actor,
    /// The chain value of the generation that a `committed` entry is about.
    pub content: Option<Digest>,
    /// The hash that ties it to the entries before it.
    pub hash: Digest,
}

/// What can be in a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A generation has been decided on; effects follow.
    Committed {
        /// Its number.
        generation: u64,
        /// When it is given up unless it is active by then.
        deadline: Timestamp,
    },
    /// A canary's share of the traffic is in force.
    Stepped {
        /// The generation.
        generation: u64,
        /// The server.
        component: ComponentId,
        /// Which step, from 0.
        step: u32,
    },
    /// All that the generation wants serves, and is watched from now on.
    Serving {
        /// Its number.
        generation: u64,
    },
    /// All that the generation wants is ready and serves, and did no worse than what was before.
    Active {
        /// Its number.
        generation: u64,
    },
    /// The generation was given up; the newest active one goes on.
    Abandoned {
        /// Its number.
        generation: u64,
        /// Why.
        reason: Abandonment,
    },
    /// What follows a repository or a webhook leaves the stack alone until `resume`.
    Pinned {
        /// The generation that it is pinned to.
        generation: u64,
    },
    /// The pin is taken out.
    Resumed,
    /// A count was pinned by hand, or (`None`) given back.
    Scaled {
        /// The server.
        component: ComponentId,
        /// The pinned count.
        count: Option<u32>,
    },
    /// By what is asked of a server, another count of instances is wanted.
    Sized {
        /// The server.
        component: ComponentId,
        /// How many were wanted.
        was: u32,
        /// How many are.
        count: u32,
        /// What it rests on.
        because: String,
    },
    /// An instance was made.
    Made {
        /// Of which component.
        component: ComponentId,
        /// Its id.
        instance: InstanceId,
        /// Why.
        because: String,
        /// Whether it came beside the others, in place of none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        grows: bool,
    },
    /// An instance was retired.
    Retired {
        /// Of which component, where that is known.
        component: Option<ComponentId>,
        /// Its id.
        instance: InstanceId,
        /// Why.
        because: String,
    },
    /// An instance was seen ready for the first time.
    Proved {
        /// Of which component.
        component: ComponentId,
    },
    /// An instance ended, or could not be made, without ever having been ready.
    Failed {
        /// Of which component.
        component: ComponentId,
        /// Its id.
        instance: InstanceId,
        /// How.
        cause: String,
        /// The last lines that it wrote.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        last_words: Vec<String>,
    },
    /// An instance that had been ready ended by itself, or was found dead.
    Crashed {
        /// Of which component.
        component: ComponentId,
        /// Its id.
        instance: InstanceId,
        /// When it was made.
        made_at: Timestamp,
        /// How.
        cause: String,
        /// The last lines that it wrote.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        last_words: Vec<String>,
    },
    /// Something was found not to be what it was made as.
    Drifted {
        /// Of which component.
        component: ComponentId,
        /// Its id.
        instance: InstanceId,
        /// In what it differs.
        drift: Vec<Drift>,
        /// Whether evidence of it is kept when it ends.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        quarantine: bool,
    },
    /// An alarm was raised.
    Alarmed {
        /// Which.
        alarm: Alarm,
    },
    /// A daemon began to serve the root. Of no stack, like all that follow.
    Began {
        /// Its version.
        version: String,
        /// The SHA-256 of its program.
        program: String,
        /// Its process.
        pid: u32,
    },
    /// A branch is followed from now on.
    Followed {
        /// The id of the follow.
        id: String,
        /// The repository.
        url: String,
        /// The branch.
        branch: String,
    },
    /// A branch is followed no longer.
    Unfollowed {
        /// The id of the follow.
        id: String,
    },
    /// The store was found not to be what was written, and has been put right since.
    Tampered {
        /// What was wrong.
        problems: Vec<String>,
        /// When it was found.
        found_at: Timestamp,
    },
    /// The store was taken as it was found for the truth from then on.
    Accepted {
        /// What was wrong.
        problems: Vec<String>,
        /// Why, in the words of who decided it.
        because: String,
    },
}

/// Why a generation was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandonment {
    /// What ended it.
    pub kind: AbandonKind,
    /// What stood in the way, by component.
    pub blame: Vec<Blame>,
}

/// What ended a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbandonKind {
    /// Its deadline passed.
    Deadline,
    /// The target refused a step for good.
    Refused,
    /// Its instances got healthy and did worse than those before.
    Worse,
    /// A person asked for it.
    Cancelled,
    /// Another generation was committed over it.
    Superseded,
}

/// One thing that stood in a rollout's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// What was not ready; none for a step that belongs to no one component.
    pub component: Option<ComponentId>,
    /// What is known of the cause.
    pub cause: String,
    /// The last lines of its log.
    pub last_words: Vec<String>,
}

/// The state of a stack, derived from its journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The highest number given to a generation; 0 before the first.
    pub newest: u64,
    /// The newest active generation.
    pub active: Option<u64>,
    /// Since when it has been active.
    pub active_since: Option<Timestamp>,
    /// The rollout under way.
    pub rollout: Option<RolloutRecord>,
    /// How the last rollout that was given up ended.
    pub abandoned: Option<(u64, Abandonment)>,
    /// The generation that the stack is pinned to.
    pub pin: Option<u64>,
    /// Counts pinned by hand.
    pub scale: BTreeMap<ComponentId, u32>,
    /// What is known to have drifted and is not gone.
    pub drifted: BTreeSet<InstanceId>,
    /// Alarms that were raised of late.
    pub alarms: Alarms,
    /// Counts that follow demand, as they were decided last.
    pub sized: BTreeMap<ComponentId, Sized>,
    made: BTreeMap<ComponentId, Vec<Timestamp>>,
    /// Ends of instances that never were ready, by component.
    failures: BTreeMap<ComponentId, Failure>,
    /// Ends of instances that had been.
    crashes: BTreeMap<ComponentId, Failure>,
}

/// A count that was decided by what is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sized {
    /// How many instances are wanted.
    pub count: u32,
    /// When that was decided.
    pub at: Timestamp,
    /// What it rests on.
    pub because: String,
}

/// An entry that can't follow those before it: the store was altered, or there is a defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal says {event} although {problem}")]
pub struct Illegal {
    event: String,
    problem: &'static str,
}

impl State {
    /// The state after `entries`.
    pub fn derive<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Self, Illegal> {
        let mut state = State::default();
        for entry in entries {
            state.apply(entry)?;
        }
        Ok(state)
    }

    /// Takes in one more entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Illegal> {
        match &entry.event {
            Event::Committed { generation, deadline } => {
                legal(*generation > self.newest, entry, "its number is not a new one")?;
                self.newest = *generation;
                self.failures.clear();
                self.rollout = Some(RolloutRecord::new(*generation, entry.at, *deadline));
                self.crashes.clear();
            }
            Event::Active { generation } => {
                self.under_way(*generation, entry)?;
                self.active = Some(*generation);
                self.active_since = Some(entry.at);
                self.rollout = None;
                self.abandoned = None;
            }
            Event::Stepped { generation, component, step } => {
                let record = StepRecord { step: *step, since: entry.at };
                self.rollout_of(*generation, entry)?.steps.insert(component.clone(), record);
            }
            Event::Serving { generation } => {
                self.rollout_of(*generation, entry)?.serving.get_or_insert(entry.at);
            }
            Event::Abandoned { generation, reason } => {
                self.under_way(*generation, entry)?;
                self.rollout = None;
                self.failures.clear();
                self.abandoned = Some((*generation, reason.clone()));
            }
            Event::Pinned { generation } => self.pin = Some(*generation),
            Event::Resumed => self.pin = None,
            Event::Scaled { component, count: Some(count) } => {
                self.scale.insert(component.clone(), *count);
            }
            Event::Scaled { component, count: None } => {
                self.scale.remove(component);
            }
            Event::Sized { component, count, because, .. } => {
                let (count, at, because) = (*count, entry.at, because.clone());
                self.sized.insert(component.clone(), Sized { count, at, because });
            }
            // What is made because more is asked for replaces nobody.
            Event::Made { component, grows: false, .. } => {
                let made = self.made.entry(component.clone()).or_default();
                made.retain(|at| entry.at.since(*at) < Millis::seconds(60));
                made.push(entry.at);
            }
            Event::Proved { component } => {
                self.failures.remove(component);
            }
            Event::Failed { component, instance, cause, last_words } => {
                let before = self.failures.get(component);
                let failure = Failure::after(before, entry.at, instance, cause, last_words);
                self.failures.insert(component.clone(), failure);
            }
            Event::Crashed { component, instance, made_at, cause, last_words } => {
                let before = self.crashes.get(component).filter(|c| c.is_recent(entry.at));
                let crash = Failure::after(before, entry.at, instance, cause, last_words);
                let crash = crash.of_one_made_at(*made_at, before);
                self.crashes.insert(component.clone(), crash);
            }
            Event::Drifted { instance, .. } => {
                self.drifted.insert(instance.clone());
            }
            Event::Retired { instance, .. } => {
                self.drifted.remove(instance);
            }
            Event::Alarmed { alarm } => self.alarms.raised(entry.at, alarm),
            Event::Made { .. }
            | Event::Began { .. }
            | Event::Followed { .. }
            | Event::Unfollowed { .. }
            | Event::Tampered { .. }
            | Event::Accepted { .. } => {}
        }
        Ok(())
    }

    /// How often each component's instances had to be made lately, at `now`.
    pub fn pace(&self, now: Timestamp) -> BTreeMap<ComponentId, Pace> {
        let mut pace: BTreeMap<ComponentId, Pace> = BTreeMap::new();
        for (component, made) in &self.made {
            let recent = made.iter().filter(|at| now.since(**at) < Millis::seconds(60)).count();
            let entry = pace.entry(component.clone()).or_default();
            entry.in_last_minute = u32::try_from(recent).unwrap_or(u32::MAX);
            entry.last_made = made.last().copied().unwrap_or_default();
        }
        for (component, failure) in &self.failures {
            let entry = pace.entry(component.clone()).or_default();
            entry.never_ready = failure.in_a_row;
            entry.last_failure = Some((failure.at, failure.cause.clone()));
        }
        for (component, crash) in self.crashes.iter().filter(|(_, c)| c.is_recent(now)) {
            let entry = pace.entry(component.clone()).or_default();
            entry.crashes = crash.in_a_row;
            entry.last_crash = Some((crash.at, crash.cause.clone()));
        }
        pace
    }

    /// The instances of a component that failed in a row, with the last of them; those that
    /// never were ready come before those that had been.
    pub fn failure(&self, component: &ComponentId, now: Timestamp) -> Option<&Failure> {
        let crash = || self.crashes.get(component).filter(|crash| crash.is_recent(now));
        self.failures.get(component).or_else(crash)
    }

    /// The generation to aim at: the one being rolled out, else the newest active one.
    pub fn aim(&self) -> Option<u64> {
        self.rollout.as_ref().map(|r| r.generation).or(self.active)
    }

    fn under_way(&mut self, generation: u64, entry: &Entry) -> Result<(), Illegal> {
        self.rollout_of(generation, entry).map(drop)
    }

    /// The rollout under way, which has to be that of this generation.
    fn rollout_of(
        &mut self,
        generation: u64,
        entry: &Entry,
    ) -> Result<&mut RolloutRecord, Illegal> {
        let rollout = self.rollout.as_mut().filter(|rollout| rollout.generation == generation);
        rollout.ok_or_else(|| illegal(entry, "that generation is not being rolled out"))
    }
}

fn legal(legal: bool, entry: &Entry, problem: &'static str) -> Result<(), Illegal> {
    if legal { Ok(()) } else { Err(illegal(entry, problem)) }
}

fn illegal(entry: &Entry, problem: &'static str) -> Illegal {
    let event = serde_json::to_string(&entry.event).unwrap_or_default();
    Illegal { event, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u64, event: Event) -> Entry {
        Entry { at: Timestamp(at), event }
    }

    fn committed(generation: u64) -> Event {
        Event::Committed { generation, deadline: Timestamp(100) }
    }

    #[test]
    fn any_prefix_of_a_journal_has_a_state() {
        let reason = Abandonment { kind: AbandonKind::Deadline, blame: Vec::new() };
        let entries = [
            at(1, committed(1)),
            at(2, Event::Active { generation: 1 }),
            at(3, committed(2)),
            at(4, Event::Abandoned { generation: 2, reason }),
            at(5, committed(3)),
        ];
        let aims: Vec<Option<u64>> =
            (0..=entries.len()).map(|n| State::derive(&entries[..n]).unwrap().aim()).collect();
        assert_eq!(aims, [None, Some(1), Some(1), Some(2), Some(1), Some(3)]);
    }

    #[test]
    fn the_illegal_is_refused() {
        assert!(State::derive(&[at(1, Event::Active { generation: 1 })]).is_err());
        assert!(State::derive(&[at(1, committed(1)), at(2, committed(1))]).is_err());
        let twice = [
            at(1, committed(1)),
            at(2, Event::Active { generation: 1 }),
            at(3, Event::Active { generation: 1 }),
        ];
        assert!(State::derive(&twice).is_err());
    }

    #[test]
    fn crashes_in_a_row_are_of_instances_made_one_after_the_other() {
        let component: ComponentId = "server.web".parse().unwrap();
        let crashed = |made_at| Event::Crashed {
            component: component.clone(),
            instance: "web-1".parse().unwrap(),
            made_at: Timestamp(made_at),
            cause: "exited with status 3".to_owned(),
            last_words: vec!["oh".to_owned()],
        };
        let mut state = State::default();
        let mut crash = |when, made_at| {
            state.apply(&at(when, crashed(made_at))).unwrap();
            let pace = state.pace(Timestamp(when));
            let failure = state.failure(&component, Timestamp(when)).unwrap();
            assert_eq!(failure.last_words, ["oh"]);
            pace[&component].crashes
        };
        assert_eq!([crash(10, 1), crash(11, 2), crash(20, 12)], [1, 1, 2]);
        let late = 20 + crate::failure::RECENT.0;
        assert_eq!(crash(late, 30), 1, "a crash long ago is forgotten");
        assert!(state.failure(&component, Timestamp(2 * late)).is_none());
    }

    #[test]
    fn failures_in_a_row_end_with_a_proof() {
        let component: ComponentId = "server.web".parse().unwrap();
        let failed = Event::Failed {
            component: component.clone(),
            instance: "web-1".parse().unwrap(),
            cause: "exited with status 1".to_owned(),
            last_words: Vec::new(),
        };
        let mut state = State::derive(&[at(1, failed.clone()), at(2, failed)]).unwrap();
        assert_eq!(state.pace(Timestamp(3))[&component].never_ready, 2);
        state.apply(&at(3, Event::Proved { component: component.clone() })).unwrap();
        assert!(!state.pace(Timestamp(4)).contains_key(&component));
    }
}
