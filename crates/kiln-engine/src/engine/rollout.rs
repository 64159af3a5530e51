//! What is written down about rollouts and instances: how a proposal becomes a generation, a
//! generation active or abandoned, and an instance's first success or early end.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_model::generation::{Content, Generation, Origin};
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::observed::{Observed, ObservedInstance, Phase, Verdict};
use kiln_model::plan::{Milestone, Report};
use kiln_model::quantity::Millis;
use kiln_model::route::RouteTable;

use crate::actor::Actor;
use crate::clock::Clock;
use crate::failure;
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
        if let (Origin::Follow, Some(generation)) = (&proposal.origin, self.state.pin) {
            return Err(Refusal::Pinned { stack: self.stack.clone(), generation });
        }
        let active = match self.state.active {
            Some(number) => Some(self.generation(number)?),
            None => None,
        };
        let nothing = Content::default();
        let before = active.as_ref().map_or(&nothing, |g| &g.content);
        let numbered = |number| proposal.content.clone().following(before, number);
        if let Some(rollout) = &self.state.rollout {
            let under_way = self.generation(rollout.generation)?;
            let wanted = numbered(under_way.number).digest()?;
            let same = under_way.content.digest()? == wanted;
            return Ok(same.then_some(Committed::Joined(under_way.number)));
        }
        let content = numbered(self.state.newest + 1);
        if let Some(active) = &active
            && active.content.digest()? == content.digest()?
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
        let deadline = content.rollout_deadline(before);
        self.commit(proposal, content, deadline).map(|number| Some(Committed::Started(number)))
    }

    /// Intent before effect: when this returns, the generation is on the disk.
    fn commit(
        &mut self,
        proposal: &Proposal,
        content: Content,
        deadline: Millis,
    ) -> Result<u64, Refusal> {
        let now = self.engine.clock.now();
        let number = self.state.newest + 1;
        let deadline = now.after(deadline);
        let generation = Arc::new(Generation {
            stack: self.stack.clone(),
            number,
            parent: self.state.active,
            origin: proposal.origin.clone(),
            commit: proposal.commit.clone(),
            created_at: now,
            content,
        });
        let mut entries =
            vec![Entry { at: now, event: Event::Committed { generation: number, deadline } }];
        if matches!(proposal.origin, Origin::Rollback { .. }) {
            entries.push(Entry { at: now, event: Event::Pinned { generation: number } });
        }
        let mut writes = vec![Write::Generation(generation.clone())];
        writes.extend(entries.iter().cloned().map(Write::Entry));
        self.engine.store.append(&self.stack, &proposal.by, &writes)?;
        for entry in &entries {
            self.state.apply(entry)?;
        }
        self.remember(generation);
        self.words.clear();
        self.watcher.begin();
        self.tell(ProgressEvent::Committed { generation: number, deadline });
        Ok(number)
    }

    /// Adds to the journal, then to the state, what the keeper itself has decided or seen.
    pub(super) fn record(&mut self, events: Vec<Event>) -> Result<(), Refusal> {
        self.record_by(&Actor::Keeper, events)
    }

    /// Adds to the journal, then to the state.
    pub(super) fn record_by(&mut self, by: &Actor, events: Vec<Event>) -> Result<(), Refusal> {
        if events.is_empty() {
            return Ok(());
        }
        let at = self.engine.clock.now();
        let entries: Vec<Entry> = events.into_iter().map(|event| Entry { at, event }).collect();
        let writes: Vec<Write> = entries.iter().cloned().map(Write::Entry).collect();
        self.engine.store.append(&self.stack, by, &writes)?;
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

    /// Writes down what the rollout has come to; whether that was anything.
    pub(super) fn reached(&mut self, milestones: &[Milestone]) -> Result<bool, Refusal> {
        let Some(rollout) = &self.state.rollout else { return Ok(false) };
        let generation = rollout.generation;
        let event = |milestone: &Milestone| match milestone.clone() {
            Milestone::Step { component, step } => Event::Stepped { generation, component, step },
            Milestone::Serving => Event::Serving { generation },
        };
        let events: Vec<Event> = milestones.iter().map(event).collect();
        let any = !events.is_empty();
        self.record(events)?;
        for milestone in milestones {
            self.tell(ProgressEvent::Reached { generation, milestone: milestone.clone() });
        }
        Ok(any)
    }

    /// Gives up the generation under way.
    pub(super) fn abandon(
        &mut self,
        kind: AbandonKind,
        mut blame: Vec<Blame>,
        by: &Actor,
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
        self.record_by(by, vec![Event::Abandoned { generation, reason: reason.clone() }])?;
        self.tell(ProgressEvent::Abandoned { generation, reason: reason.clone() });
        self.mourn(generation, &reason)?;
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

    /// Writes down which instances were seen ready, ended or were given up for the first time.
    pub(super) async fn note(
        &mut self,
        desired: &Generation,
        observed: &Observed,
    ) -> Result<(), Refusal> {
        let rotation: BTreeSet<&InstanceId> =
            observed.table.iter().flat_map(RouteTable::in_rotation).collect();
        let mut events = Vec::new();
        for instance in &observed.instances {
            // What is in rotation was proved, perhaps to an earlier daemon.
            if instance.is_ready() || rotation.contains(&instance.id) {
                let first = self.proved.insert(instance.id.clone());
                events.extend(first.then(|| self.proof(&instance.component)).flatten());
            }
            if let Some(cause) = end(instance)
                && self.ended.insert(instance.id.clone())
            {
                let event = self.end(instance, cause).await;
                if let Some(Event::Crashed { cause, .. }) = &event {
                    self.watcher.crashed(desired, instance, cause);
                }
                events.extend(event);
            }
        }
        let present: BTreeSet<&InstanceId> = observed.instances.iter().map(|i| &i.id).collect();
        self.proved.retain(|id| present.contains(id));
        self.ended.retain(|id| present.contains(id));
        self.record(events)?;
        self.forget_drift(observed);
        self.note_drift(desired, observed)
    }

    /// The event of an instance's first success, where failures of its component are known.
    fn proof(&mut self, component: &ComponentId) -> Option<Event> {
        let failing = self.failing.remove(component);
        let told = self.words.remove(component).is_some();
        (failing || told).then(|| Event::Proved { component: component.clone() })
    }

    /// The event of an instance's end: a failure, where it was never ready, or a crash, where it
    /// ended by itself or is dead. Whatever else ends one is told by its being retired.
    async fn end(&mut self, instance: &ObservedInstance, cause: String) -> Option<Event> {
        let proved = self.proved.contains(&instance.id);
        if proved && !instance.is_running() && !instance.has_crashed() {
            return None;
        }
        let words = self.engine.target.last_words(&instance.id, LAST_WORDS).await;
        let (component, id) = (instance.component.clone(), instance.id.clone());
        let last_words = failure::excerpt(&words);
        self.words.insert(component.clone(), words);
        if proved {
            let made_at = instance.created_at;
            return Some(Event::Crashed { component, instance: id, made_at, cause, last_words });
        }
        self.failing.insert(component.clone());
        Some(Event::Failed { component, instance: id, cause, last_words })
    }
}

/// How an instance ended that nobody wanted to end, or why it is given up.
fn end(instance: &ObservedInstance) -> Option<String> {
    if instance.draining_since.is_some() {
        return None;
    }
    match (&instance.phase, &instance.health) {
        (Phase::Ended { cause }, _) => Some(cause.to_string()),
        (Phase::Running, Verdict::Dead { reason, .. }) => Some(reason.clone()),
        (Phase::Running, _) => None,
    }
}
