//! How the new instances of a rollout do: what they and those before answered, which of them
//! ended by themselves, and what their checks say. It is kept in memory: a keeper that starts
//! anew begins to count anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::analysis::{Answers, Evidence};
use kiln_model::digest::Digest;
use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::{CheckRecord, ObservedInstance, Trial};
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
    /// Whether the rollout's beginning was seen; after a restart it was not.
    begun: bool,
    /// Checks that are being asked.
    asked: BTreeSet<ComponentId>,
    due: BTreeMap<ComponentId, Timestamp>,
    running: JoinSet<(ComponentId, Timestamp, Result<(), String>)>,
}

impl Watcher {
    /// A rollout begins, or is over.
    pub(super) fn begin(&mut self) {
        let (older, newer) = &self.readings;
        self.start = if older.is_empty() { newer.clone() } else { older.clone() };
        self.begun = true;
        self.asked.clear();
        self.last.clear();
        self.fallen.clear();
        self.checks.clear();
        self.due.clear();
        self.running = JoinSet::new();
    }

    /// Takes in what was seen.
    pub(super) fn see(&mut self, now: Timestamp, instances: &[ObservedInstance], rollout: bool) {
        let reading = || instances.iter().map(|i| (i.id.clone(), i.answers.clone())).collect();
        if rollout && !self.begun {
            self.start = reading();
            self.begun = true;
        }
        if now.since(self.read_at) >= APART {
            let reading = reading();
            self.readings.0 = std::mem::replace(&mut self.readings.1, reading);
            self.read_at = now;
        }
        if rollout {
            for i in instances {
                let seen = || (i.component.clone(), i.digest, i.answers.clone());
                let entry = self.last.entry(i.id.clone()).or_insert_with(seen);
                // Of one that has left rotation the gateway soon knows nothing any more.
                if i.answers.total() > entry.2.total() {
                    entry.2.clone_from(&i.answers);
                }
            }
        }
    }

    /// An instance that was ready has ended by itself, or is dead.
    pub(super) fn crashed(
        &mut self,
        desired: &Generation,
        instance: &ObservedInstance,
        cause: &str,
    ) {
        let wanted = desired.content.components.get(&instance.component);
        if wanted.is_some_and(|c| c.digest == instance.digest) {
            self.fallen.entry(instance.component.clone()).or_insert_with(|| cause.to_owned());
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
            if self.asked.contains(id) {
                continue;
            }
            if due <= now {
                self.due.insert(id.clone(), now.after(check.every));
                self.asked.insert(id.clone());
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
                self.asked.remove(&component);
                let record = self.checks.entry(component).or_default();
                match result {
                    Ok(()) => (record.passed, record.failure) = (Some(began), None),
                    Err(failure) => record.failure = Some(failure),
                }
            }
            // One that panicked has said nothing. Whose it was is not known: all are asked again.
            Some(Err(_)) => self.asked.clear(),
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

#[cfg(test)]
mod tests {
    use kiln_model::fixture::{endpoint, generation, id, image, network, server};
    use kiln_model::observed::{Phase, Verdict};
    use kiln_model::plan::{Action, Creation, plan};

    use super::*;

    fn release(number: u64, input: &str) -> Generation {
        let endpoint = endpoint("shop", "127.0.0.1:8080", "web");
        let web = server("web").spec();
        generation(
            number,
            vec![image("web", input), network("front", "10.0.0.0/24"), web, endpoint],
        )
    }

    fn instance(name: &str, generation: &Generation, good: u64) -> ObservedInstance {
        let (plan, _) = plan(generation, &kiln_model::observed::Observed::default());
        let made = plan.steps.into_iter().find_map(|step| match step.action {
            Action::Create(Creation::Instance(made)) => Some(made),
            _ => None,
        });
        let made = made.unwrap();
        ObservedInstance {
            id: name.parse().unwrap(),
            component: made.component.clone(),
            digest: made.digest,
            generation: generation.number,
            network: made.network.clone(),
            address: made.address,
            connects: Vec::new(),
            created_at: Timestamp(0),
            pid: Some(1),
            phase: Phase::Running,
            health: Verdict::Ready { since: Timestamp(0) },
            draining_since: None,
            in_flight: 0,
            answers: Answers { responses: [0, good, 0, 0, 0], ..Answers::default() },
            integrity: None,
            data: None,
            drift: Vec::new(),
        }
    }

    #[test]
    fn both_sides_are_counted_from_shortly_before_the_beginning() {
        let (first, second) = (release(1, "v1"), release(2, "v2"));
        let mut watcher = Watcher::default();
        watcher.see(Timestamp(1_000_000), &[instance("web-1", &first, 100)], false);
        watcher.see(Timestamp(1_040_000), &[instance("web-1", &first, 150)], false);
        watcher.begin();
        let seen = [instance("web-1", &first, 170), instance("web-2", &second, 7)];
        watcher.see(Timestamp(1_041_000), &seen, true);
        // Neither one that nobody asks any more nor one that has gone is forgotten.
        let hidden = instance("web-1", &first, 0);
        watcher.see(Timestamp(1_042_000), &[hidden, seen[1].clone()], true);
        watcher.see(Timestamp(1_043_000), &seen[1..], true);
        let trial = watcher.trial(&second, &first);
        let evidence = &trial.evidence[&id("server.web")];
        assert_eq!((evidence.old.total(), evidence.new.total()), (70, 7));
        assert_eq!(trial.judged.len(), 1);
        assert_eq!(watcher.trial(&second, &second).evidence, BTreeMap::new());
    }
}
