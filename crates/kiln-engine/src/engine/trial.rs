//! How the new instances of a rollout do: what they and those before answered, which of them
//! ended by themselves, and what their checks say. It is kept in memory: a keeper that starts
//! anew begins to count anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::analysis::{Answers, Evidence};
use kiln_model::digest::Digest;
use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::{CheckRecord, Ending, ObservedInstance, Phase, Trial};
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::spec::rollout::Check;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::target::{Examination, Target};

/// How far the readings are apart that a rollout's beginning is compared with: it begins with
/// what was answered in the last one to two of these.
const APART: Millis = Millis::seconds(30);

type Reading = BTreeMap<InstanceId, Answers>;

/// What is known of a rollout's instances.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// The reading that a rollout which begins now starts from, and the one after it.
    readings: (Reading, Reading),
    read_at: Timestamp,
    /// The reading that the rollout under way started from.
    start: Reading,
    /// What each instance had answered when it was last seen.
    last: BTreeMap<InstanceId, (ComponentId, Digest, Answers)>,
    fallen: BTreeMap<ComponentId, String>,
    checks: BTreeMap<ComponentId, CheckRecord>,
    due: BTreeMap<ComponentId, Timestamp>,
    running: JoinSet<(ComponentId, Timestamp, Result<(), String>)>,
}

impl Watcher {
    /// A rollout begins, or is over.
    pub(super) fn begin(&mut self) {
        self.start = self.readings.0.clone();
        self.last.clear();
        self.fallen.clear();
        self.checks.clear();
        self.due.clear();
        self.running = JoinSet::new();
    }

    /// Takes in what was seen.
    pub(super) fn see(&mut self, now: Timestamp, instances: &[ObservedInstance], rollout: bool) {
        if now.since(self.read_at) >= APART {
            let reading = instances.iter().map(|i| (i.id.clone(), i.answers.clone())).collect();
            self.readings.0 = std::mem::replace(&mut self.readings.1, reading);
            self.read_at = now;
        }
        if rollout {
            for i in instances {
                let seen = (i.component.clone(), i.digest, i.answers.clone());
                self.last.insert(i.id.clone(), seen);
            }
        }
    }

    /// An instance that was ready has ended. That somebody killed it says nothing of it.
    pub(super) fn ended(&mut self, desired: &Generation, instance: &ObservedInstance) {
        let Phase::Ended { cause } = &instance.phase else { return };
        let by_itself = !matches!(cause, Ending::Killed(9 | 15) | Ending::Incomplete);
        let wanted = desired.content.components.get(&instance.component);
        if by_itself && wanted.is_some_and(|c| c.digest == instance.digest) {
            self.fallen.entry(instance.component.clone()).or_insert_with(|| cause.to_string());
        }
    }

    /// What is known of the rollout to `desired`, which replaces `parent`.
    pub(super) fn trial(&self, desired: &Generation, parent: &Generation) -> Trial {
        let judged = judged(desired, parent);
        let watch = desired.content.servers().filter(|(id, _, _)| judged.contains(*id));
        let watch = watch.map(|(_, _, server)| server.policy.rollout.watch).max();
        let mut evidence: BTreeMap<ComponentId, Evidence> = BTreeMap::new();
        let nothing = Answers::default();
        for (id, (component, digest, answers)) in &self.last {
            let Some(wanted) = desired.content.components.get(component) else { continue };
            if !judged.contains(component) {
                continue;
            }
            let entry = evidence.entry(component.clone()).or_default();
            let side = if wanted.digest == *digest { &mut entry.new } else { &mut entry.old };
            side.add(&answers.since(self.start.get(id).unwrap_or(&nothing)));
        }
        let fallen = self.fallen.iter().filter(|(id, _)| judged.contains(*id));
        Trial {
            watch: watch.unwrap_or_default(),
            evidence,
            fallen: fallen.map(|(id, cause)| (id.clone(), cause.clone())).collect(),
            checks: self.checks.clone(),
            judged,
        }
    }

    /// Begins the checks that are due; when the next one is.
    pub(super) fn ask<T: Target, C: Clock>(
        &mut self,
        (target, clock): (&Arc<T>, &Arc<C>),
        stack: &StackName,
        desired: &Generation,
        trial: &Trial,
        instances: &[ObservedInstance],
    ) -> Option<Timestamp> {
        let now = clock.now();
        let mut next = None;
        for (id, component, server) in desired.content.servers() {
            let Some(check) = server.policy.rollout.analysis.check.as_ref() else { continue };
            let new = instances.iter().filter(|i| i.digest == component.digest && i.is_ready());
            let new: Vec<InstanceId> = new.map(|i| i.id.clone()).collect();
            if !trial.judged.contains(id) || new.is_empty() {
                continue;
            }
            let due = self.due.get(id).copied().unwrap_or(now);
            if due <= now {
                self.due.insert(id.clone(), now.after(check.every.max(check.timeout)));
                let examination = Examination {
                    stack: stack.clone(),
                    component: id.clone(),
                    generation: desired.number,
                    instances: new,
                    check: check.clone(),
                };
                self.examine(target.clone(), clock.clone(), examination);
            }
            next = [next, self.due.get(id).copied()].into_iter().flatten().min();
        }
        next
    }

    fn examine<T: Target, C: Clock>(&mut self, target: Arc<T>, clock: Arc<C>, asked: Examination) {
        self.running.spawn(async move {
            let began = clock.now();
            let Check { timeout, .. } = asked.check;
            let result = tokio::select! {
                biased;
                result = target.examine(&asked) => result,
                () = clock.sleep_until(began.after(timeout)) => {
                    Err(format!("no answer within {timeout}"))
                }
            };
            (asked.component, began, result)
        });
    }

    /// Waits until a check has been answered; for ever where none is asked.
    pub(super) async fn answered(&mut self) {
        match self.running.join_next().await {
            Some(Ok((component, began, result))) => {
                let record = self.checks.entry(component).or_default();
                match result {
                    Ok(()) => (record.passed, record.failure) = (Some(began), None),
                    Err(failure) => record.failure = Some(failure),
                }
            }
            // One that panicked has said nothing, and is asked again.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// The servers whose instances `desired` replaces.
fn judged(desired: &Generation, parent: &Generation) -> BTreeSet<ComponentId> {
    let before = |id: &ComponentId| parent.content.components.get(id).map(|c| c.digest);
    let servers = desired.content.servers();
    let changed = servers.filter(|(id, c, _)| before(id).is_some_and(|digest| digest != c.digest));
    changed.map(|(id, _, _)| id.clone()).collect()
}
