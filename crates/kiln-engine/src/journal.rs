//! The journal: what has been decided and what has happened to a stack.
//!
//! Events are stored, status is derived from them by one function that refuses what can't be.
//! A generation is never altered: its fate stands here, first `committed`, then `active` or
//! `abandoned`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::observed::{Pace, RolloutRecord};
use kiln_model::quantity::{Millis, Timestamp};

/// One entry of a stack's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
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
    /// All that the generation wants is ready and serves.
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
    /// The rollout under way.
    pub rollout: Option<RolloutRecord>,
    /// How the last rollout that was given up ended.
    pub abandoned: Option<(u64, Abandonment)>,
    /// The generation that the stack is pinned to.
    pub pin: Option<u64>,
    /// Counts pinned by hand.
    pub scale: BTreeMap<ComponentId, u32>,
    /// Counts that follow demand, as they were decided last.
    pub sized: BTreeMap<ComponentId, Sized>,
    made: BTreeMap<ComponentId, Vec<Timestamp>>,
    failures: BTreeMap<ComponentId, (u32, Timestamp, String)>,
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
                self.rollout = Some(RolloutRecord {
                    generation: *generation,
                    started: entry.at,
                    deadline: *deadline,
                });
            }
            Event::Active { generation } => {
                self.under_way(*generation, entry)?;
                self.active = Some(*generation);
                self.rollout = None;
                self.abandoned = None;
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
            Event::Failed { component, cause, .. } => {
                let so_far = self.failures.get(component).map_or(0, |f| f.0);
                let failure = (so_far.saturating_add(1), entry.at, cause.clone());
                self.failures.insert(component.clone(), failure);
            }
            Event::Made { .. } | Event::Retired { .. } => {}
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
        for (component, (count, at, cause)) in &self.failures {
            let entry = pace.entry(component.clone()).or_default();
            entry.never_ready = *count;
            entry.last_failure = Some((*at, cause.clone()));
        }
        pace
    }

    /// The generation to aim at: the one being rolled out, else the newest active one.
    pub fn aim(&self) -> Option<u64> {
        self.rollout.as_ref().map(|r| r.generation).or(self.active)
    }

    fn under_way(&self, generation: u64, entry: &Entry) -> Result<(), Illegal> {
        let same = self.rollout.as_ref().is_some_and(|r| r.generation == generation);
        legal(same, entry, "that generation is not being rolled out")
    }
}

fn legal(legal: bool, entry: &Entry, problem: &'static str) -> Result<(), Illegal> {
    if legal {
        return Ok(());
    }
    let event = serde_json::to_string(&entry.event).unwrap_or_default();
    Err(Illegal { event, problem })
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
    fn failures_in_a_row_end_with_a_proof() {
        let component: ComponentId = "server.web".parse().unwrap();
        let failed = Event::Failed {
            component: component.clone(),
            instance: "web-1".parse().unwrap(),
            cause: "exited with status 1".to_owned(),
        };
        let mut state = State::derive(&[at(1, failed.clone()), at(2, failed)]).unwrap();
        assert_eq!(state.pace(Timestamp(3))[&component].never_ready, 2);
        state.apply(&at(3, Event::Proved { component: component.clone() })).unwrap();
        assert!(!state.pace(Timestamp(4)).contains_key(&component));
    }
}
