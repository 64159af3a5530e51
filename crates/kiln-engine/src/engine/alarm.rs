//! What a keeper raises alarms for. They are written down before anybody is told, and who tells
//! whom they are for does not keep the keeper.

use kiln_model::alarm::{Alarm, Cause, Hooks};
use kiln_model::drift::Drift;
use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::observed::Observed;
use kiln_model::plan::{Reason, Report};

use crate::alarm::Raised;
use crate::clock::Clock;
use crate::journal::{AbandonKind, Abandonment, Event};
use crate::store::Store;
use crate::target::Target;

use super::Refusal;
use super::keeper::Keeper;

impl<T: Target, C: Clock, S: Store> Keeper<T, C, S> {
    /// Writes down what has drifted and was not known to have, and raises the alarm.
    pub(super) fn note_drift(
        &mut self,
        desired: &Generation,
        observed: &Observed,
    ) -> Result<(), Refusal> {
        let instances = observed.instances.iter().map(|i| (&i.component, &i.id, &i.drift));
        let networks = observed.networks.iter().map(|n| (&n.component, &n.id, &n.drift));
        let mut alarms = Vec::new();
        let mut events = Vec::new();
        for (component, instance, drift) in instances.chain(networks) {
            let Some(first) = drift.first() else { continue };
            if self.state.drifted.contains(instance) {
                continue;
            }
            alarms.push(drifted(component, instance, first));
            events.push(Event::Drifted {
                component: component.clone(),
                instance: instance.clone(),
                drift: drift.clone(),
                quarantine: keeps_evidence(desired, component),
            });
        }
        alarms.extend(self.foreign_table(observed));
        self.record(events)?;
        self.raise(desired.number, &desired.content.hooks, alarms)
    }

    /// The alarm for a table of the gateway that somebody else has set. It is told of once.
    fn foreign_table(&mut self, observed: &Observed) -> Option<Alarm> {
        let (own, table) = (self.routed?, observed.table.as_ref()?);
        if table.epoch <= own {
            return None;
        }
        self.routed = Some(table.epoch);
        let what =
            format!("the gateway's table is epoch {} of somebody else, not {own}", table.epoch);
        Some(Alarm { cause: Cause::Drift, component: None, what })
    }

    /// Forgets what has drifted and is gone.
    pub(super) fn forget_drift(&mut self, observed: &Observed) {
        let instances = observed.instances.iter().map(|i| &i.id);
        let present: Vec<&InstanceId> =
            instances.chain(observed.networks.iter().map(|n| &n.id)).collect();
        self.state.drifted.retain(|id| present.contains(&id));
    }

    /// Raises the alarm where replacements storm, or instances end one after the other.
    pub(super) fn watch_out(
        &mut self,
        desired: &Generation,
        observed: &Observed,
        report: &Report,
    ) -> Result<(), Refusal> {
        let storms = report.waiting.iter().filter(|w| w.why == Some(Reason::Storm));
        let mut alarms: Vec<Alarm> = storms
            .map(|waiting| {
                let made = observed.pace.get(&waiting.component).map_or(0, |p| p.in_last_minute);
                let what = format!("{made} replacements within a minute; one a second from now on");
                Alarm { cause: Cause::Storm, component: Some(waiting.component.clone()), what }
            })
            .collect();
        for (component, pace) in &observed.pace {
            if let Some((times, last)) = pace.crash_loop() {
                let what = format!("{times} in a row, the last one {last}");
                let component = Some(component.clone());
                alarms.push(Alarm { cause: Cause::CrashLoop, component, what });
            }
        }
        alarms.extend(self.engine.target.alarms(&self.stack));
        self.raise(desired.number, &desired.content.hooks, alarms)
    }

    /// Raises the alarm for a rollout that was given up, unless somebody asked for it.
    pub(super) fn mourn(&mut self, generation: u64, reason: &Abandonment) -> Result<(), Refusal> {
        let why = match reason.kind {
            AbandonKind::Deadline => "its deadline passed",
            AbandonKind::Refused => "a step was refused",
            AbandonKind::Worse => "its instances do worse than those before",
            AbandonKind::Cancelled | AbandonKind::Superseded => return Ok(()),
        };
        let blame = reason.blame.first();
        let cause = blame.map(|blame| format!(": {}", blame.cause)).unwrap_or_default();
        let component = blame.and_then(|blame| blame.component.clone());
        let what = format!("generation {generation} was given up: {why}{cause}");
        let hooks = self.generation(generation)?.content.hooks.clone();
        self.raise(generation, &hooks, vec![Alarm { cause: Cause::Abandoned, component, what }])
    }

    /// Writes down those that are due, and has whoever is named told of them.
    fn raise(&mut self, generation: u64, hooks: &Hooks, alarms: Vec<Alarm>) -> Result<(), Refusal> {
        let at = self.engine.clock.now();
        for alarm in alarms {
            if !self.state.alarms.is_due(&alarm, at) {
                continue;
            }
            self.record(vec![Event::Alarmed { alarm: alarm.clone() }])?;
            let (stack, hooks) = (self.stack.clone(), hooks.clone());
            let generation = (generation > 0).then_some(generation);
            self.engine.target.alarm(Raised { at, stack, generation, alarm, hooks });
        }
        Ok(())
    }
}

fn drifted(component: &ComponentId, instance: &InstanceId, first: &Drift) -> Alarm {
    let Drift { what, expected, found } = first;
    let what = format!("{instance}: {what} is {found}, not {expected}");
    Alarm { cause: Cause::Drift, component: Some(component.clone()), what }
}

fn keeps_evidence(desired: &Generation, component: &ComponentId) -> bool {
    let component = desired.content.components.get(component);
    let server = component.and_then(|component| component.spec.as_server());
    server.is_some_and(|server| server.policy.quarantine)
}
