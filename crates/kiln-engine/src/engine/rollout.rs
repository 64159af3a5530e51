//! What is written down about rollouts and instances: how a proposal becomes a generation, a
//! generation active or abandoned, and an instance's first success or early end.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_model::generation::{Content, Generation, Origin};
use kiln_model::name::InstanceId;
use kiln_model::observed::{ObservedInstance, Phase};
use kiln_model::plan::Report;

use crate::clock::Clock;
use crate::journal::{AbandonKind, Abandonment, Blame, Entry, Event};
use crate::progress::ProgressEvent;
use crate::store::{Store, Write};
use crate::target::{Target, TargetError};

use super::keeper::Keeper;
use super::{Committed, Proposal, Refusal};

/// Lines of a failed instance's log that are kept with the reason.
const LAST_WORDS: usize = 20;

impl<T: Target, C: Clock, S: Store> Keeper<T, C, S> {
    /// Commits a proposal; `None` where it has to wait for the rollout under way.
    pub(super) fn admit(&mut self, proposal: &Proposal) -> Option<Result<Committed, Refusal>> {
        match self.try_admit(proposal) {
            Ok(None) => None,
            Ok(Some(committed)) => Some(Ok(committed)),
            Err(refusal) => Some(Err(refusal)),
        }
    }

    fn try_admit(&mut self, proposal: &Proposal) -> Result<Option<Committed>, Refusal> {
        let wanted = proposal.content.digest()?;
        if let (Origin::Follow, Some(generation)) = (&proposal.origin, self.state.pin) {
            return Err(Refusal::Pinned { stack: self.stack.clone(), generation });
        }
        if let Some(rollout) = &self.state.rollout {
            let under_way = self.generation(rollout.generation)?;
            let same = under_way.content.digest()? == wanted;
            return Ok(same.then_some(Committed::Joined(under_way.number)));
        }
        let active = match self.state.active {
            Some(number) => Some(self.generation(number)?),
            None => None,
        };
        if let Some(active) = &active
            && active.content.digest()? == wanted
        {
            return Ok(Some(Committed::Unchanged(active.number)));
        }
        if proposal.parent != self.state.active {
            return Err(Refusal::ParentChanged {
                stack: self.stack.clone(),
                planned: proposal.parent,
                found: self.state.active,
            });
        }
        let nothing = Content::default();
        let before = active.as_ref().map_or(&nothing, |g| &g.content);
        self.commit(proposal, before).map(|number| Some(Committed::Started(number)))
    }

    /// Intent before effect: when this returns, the generation is on the disk.
    fn commit(&mut self, proposal: &Proposal, before: &Content) -> Result<u64, Refusal> {
        let now = self.engine.clock.now();
        let number = self.state.newest + 1;
        let deadline = now.after(proposal.content.rollout_deadline(before));
        let generation = Arc::new(Generation {
            stack: self.stack.clone(),
            number,
            parent: self.state.active,
            origin: proposal.origin.clone(),
            commit: proposal.commit.clone(),
            created_at: now,
            content: proposal.content.clone(),
        });
        let mut entries =
            vec![Entry { at: now, event: Event::Committed { generation: number, deadline } }];
        if matches!(proposal.origin, Origin::Rollback { .. }) {
            entries.push(Entry { at: now, event: Event::Pinned { generation: number } });
        }
        let mut writes = vec![Write::Generation(generation.clone())];
        writes.extend(entries.iter().cloned().map(Write::Entry));
        self.engine.store.append(&self.stack, &writes)?;
        for entry in &entries {
            self.state.apply(entry)?;
        }
        self.remember(generation);
        self.words.clear();
        self.tell(ProgressEvent::Committed { generation: number, deadline });
        Ok(number)
    }

    /// Adds to the journal, then to the state.
    pub(super) fn record(&mut self, events: Vec<Event>) -> Result<(), Refusal> {
        if events.is_empty() {
            return Ok(());
        }
        let at = self.engine.clock.now();
        let entries: Vec<Entry> = events.into_iter().map(|event| Entry { at, event }).collect();
        let writes: Vec<Write> = entries.iter().cloned().map(Write::Entry).collect();
        self.engine.store.append(&self.stack, &writes)?;
        for entry in &entries {
            self.state.apply(entry)?;
        }
        Ok(())
    }

    /// The generation under way is what serves now.
    pub(super) fn activate(&mut self) -> Result<(), Refusal> {
        let Some(rollout) = &self.state.rollout else { return Ok(()) };
        let generation = rollout.generation;
        self.record(vec![Event::Active { generation }])?;
        self.tell(ProgressEvent::Active { generation });
        Ok(())
    }

    /// Gives up the generation under way.
    pub(super) fn abandon(
        &mut self,
        kind: AbandonKind,
        mut blame: Vec<Blame>,
    ) -> Result<u64, Refusal> {
        let Some(rollout) = self.state.rollout.clone() else {
            return Err(Refusal::NoRollout(self.stack.clone()));
        };
        for entry in &mut blame {
            if entry.last_words.is_empty()
                && let Some(component) = &entry.component
            {
                entry.last_words = self.words.get(component).cloned().unwrap_or_default();
            }
        }
        let generation = rollout.generation;
        let reason = Abandonment { kind, blame };
        self.record(vec![Event::Abandoned { generation, reason: reason.clone() }])?;
        self.tell(ProgressEvent::Abandoned { generation, reason });
        Ok(generation)
    }

    /// What stands in the way according to `report`, with the last words of those concerned.
    pub(super) async fn blame(
        &self,
        report: &Report,
        instances: &[ObservedInstance],
    ) -> Vec<Blame> {
        let mut blame = Vec::new();
        for waiting in &report.waiting {
            let cause = waiting.why.as_ref().map_or_else(
                || format!("{} of {} instances ready", waiting.ready, waiting.wanted),
                ToString::to_string,
            );
            let component = Some(waiting.component.clone());
            let alive =
                instances.iter().find(|i| i.component == waiting.component && !i.is_ready());
            let last_words = match alive {
                Some(instance) => self.engine.target.last_words(&instance.id, LAST_WORDS).await,
                None => Vec::new(),
            };
            blame.push(Blame { component, cause, last_words });
        }
        blame
    }

    /// Blame for a step that the target refused.
    pub(super) fn refused(error: &TargetError) -> Vec<Blame> {
        vec![Blame { component: None, cause: error.to_string(), last_words: Vec::new() }]
    }

    /// Writes down which instances were seen ready, or ended before they ever were, for the
    /// first time.
    pub(super) async fn note(&mut self, instances: &[ObservedInstance]) -> Result<(), Refusal> {
        let mut events = Vec::new();
        for instance in instances {
            if instance.is_ready() {
                if self.proved.insert(instance.id.clone()) {
                    let component = instance.component.clone();
                    let failing = self.words.remove(&component).is_some();
                    if failing || self.failing.remove(&component) {
                        events.push(Event::Proved { component });
                    }
                }
                continue;
            }
            let Phase::Ended { cause } = &instance.phase else { continue };
            // Its end is noted once: from then on it counts as seen.
            if !self.proved.insert(instance.id.clone()) || instance.draining_since.is_some() {
                continue;
            }
            let words = self.engine.target.last_words(&instance.id, LAST_WORDS).await;
            self.words.insert(instance.component.clone(), words);
            self.failing.insert(instance.component.clone());
            events.push(Event::Failed {
                component: instance.component.clone(),
                instance: instance.id.clone(),
                cause: cause.to_string(),
            });
        }
        let present: BTreeSet<&InstanceId> = instances.iter().map(|i| &i.id).collect();
        self.proved.retain(|id| present.contains(id));
        self.record(events)
    }
}
