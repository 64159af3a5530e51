//! Counts that follow demand: when it is measured, what is decided, and how many instances are
//! wanted for it.

use std::collections::BTreeMap;

use kiln_model::generation::{Generation, Origin};
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::observed::ObservedInstance;
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::scaling::{Demand, History, Meter, Standing, decide};
use kiln_model::spec::scale::Scale;
use kiln_model::spec::server::Server;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::journal::{Event, State};
use crate::progress::ProgressEvent;
use crate::store::Store;
use crate::target::{Target, TargetError};

use super::Refusal;
use super::keeper::Keeper;

/// From one decision to the next.
const TICK: Millis = Millis(250);

/// The same after the target has told that something changed.
const HURRY: Millis = Millis(25);

/// For one measurement.
const MEASURE: Millis = Millis::seconds(2);

/// From one run of a target's program to the next, and how long one may take.
const ASK_EVERY: Millis = Millis::seconds(1);
const ASK_BOUND: Millis = Millis::seconds(5);

/// What is known of a server whose count follows demand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scaling {
    /// What was measured last, and its target, in a few words; empty before the first time.
    pub because: String,
    /// Why the count is held, where it can't follow.
    pub trouble: Option<String>,
}

/// How many instances of each server are wanted where that is not its `replicas`: what a person
/// has pinned, else what was decided by demand, within the bounds of the generation.
///
/// While a generation is rolled out, what it changes is proved by at least one instance, and a
/// rollback starts with no fewer than its `parent` has.
pub fn wanted(
    state: &State,
    desired: &Generation,
    parent: Option<&Generation>,
) -> BTreeMap<ComponentId, u32> {
    let mut wanted = BTreeMap::new();
    let rollback = matches!(desired.origin, Origin::Rollback { .. });
    for (id, component, server) in desired.content.servers() {
        let mut count = own_count(state, id, server);
        let pinned = state.scale.contains_key(id);
        if state.rollout.is_some() && !pinned {
            let before = parent.and_then(|p| p.content.components.get(id));
            if before.is_none_or(|before| before.digest != component.digest) {
                count = count.max(server.policy.replicas.min(1));
            }
            if let Some(before) = before.and_then(|b| b.spec.as_server()).filter(|_| rollback) {
                count = count.max(own_count(state, id, before));
            }
        }
        if pinned || count != server.policy.replicas {
            wanted.insert(id.clone(), count);
        }
    }
    wanted
}

fn own_count(state: &State, id: &ComponentId, server: &Server) -> u32 {
    if let Some(pin) = state.scale.get(id) {
        return *pin;
    }
    let replicas = server.policy.replicas;
    match &server.policy.scale {
        Some(scale) => scale.clamp(state.sized.get(id).map_or(replicas, |sized| sized.count)),
        None => replicas,
    }
}

/// The servers of a stack whose counts follow demand.
#[derive(Debug, Default)]
pub(super) struct Scalers {
    servers: BTreeMap<ComponentId, Scaler>,
    /// When demand was measured last.
    last: Timestamp,
    /// When it is measured next.
    next: Timestamp,
    /// Programs that are running.
    asked: JoinSet<(ComponentId, Result<u64, String>)>,
}

/// One such server.
#[derive(Debug)]
struct Scaler {
    scale: Scale,
    meter: Meter,
    history: History,
    shown: Scaling,
    /// What its program printed last.
    number: Option<Result<u64, String>>,
    /// When the program is run next; never while it runs.
    ask_at: Timestamp,
}

impl Scaler {
    fn new(scale: Scale) -> Self {
        Self {
            scale,
            meter: Meter::default(),
            history: History::default(),
            shown: Scaling::default(),
            number: None,
            ask_at: Timestamp(0),
        }
    }
}

impl Scalers {
    /// Follows a generation: one whose policy is another begins anew.
    fn keep(&mut self, desired: &Generation) {
        let policy = |id: &ComponentId| {
            let server = desired.content.components.get(id)?.spec.as_server()?;
            server.policy.scale.clone()
        };
        self.servers.retain(|id, scaler| policy(id).as_ref() == Some(&scaler.scale));
        for (id, _, server) in desired.content.servers() {
            if let Some(scale) = &server.policy.scale {
                let new = || Scaler::new(scale.clone());
                self.servers.entry(id.clone()).or_insert_with(new);
            }
        }
    }

    /// When demand is to be measured; never where no count follows it.
    pub(super) fn due(&self) -> Option<Timestamp> {
        (!self.servers.is_empty()).then_some(self.next)
    }

    /// Something has changed: it may be that somebody waits.
    pub(super) fn hurry(&mut self) {
        self.next = self.next.min(self.last.after(HURRY));
    }

    /// What is shown of each server.
    pub(super) fn shown(&self) -> BTreeMap<ComponentId, Scaling> {
        self.servers.iter().map(|(id, scaler)| (id.clone(), scaler.shown.clone())).collect()
    }

    /// Takes in what programs have printed, and runs those again whose time has come.
    fn ask<T: Target, C: Clock>(&mut self, target: &std::sync::Arc<T>, clock: &std::sync::Arc<C>) {
        let now = clock.now();
        while let Some(joined) = self.asked.try_join_next() {
            let Ok((id, number)) = joined else { continue };
            if let Some(scaler) = self.servers.get_mut(&id) {
                scaler.number = Some(number);
                scaler.ask_at = now.after(ASK_EVERY);
            }
        }
        for (id, scaler) in &mut self.servers {
            let Some(number) = scaler.scale.target.number.clone() else { continue };
            if now < scaler.ask_at {
                continue;
            }
            // Until it is over; a program whose end is lost is run again.
            scaler.ask_at = now.after(ASK_BOUND).after(ASK_EVERY);
            let (id, target, clock) = (id.clone(), target.clone(), clock.clone());
            self.asked.spawn(async move {
                let deadline = clock.now().after(ASK_BOUND);
                let answer = tokio::select! {
                    biased;
                    answer = target.number(&number) => answer,
                    () = clock.sleep_until(deadline) => {
                        Err(format!("no number within {ASK_BOUND}"))
                    }
                };
                (id, answer)
            });
        }
    }
}

impl<T: Target, C: Clock, S: Store> Keeper<T, C, S> {
    /// How many instances are wanted, for the planner.
    pub(super) fn wanted(&self) -> BTreeMap<ComponentId, u32> {
        let Some(desired) = self.state.aim().and_then(|n| self.generations.get(&n)) else {
            return self.state.scale.clone();
        };
        let parent = desired.parent.and_then(|number| self.generations.get(&number));
        wanted(&self.state, desired, parent.map(|parent| &**parent))
    }

    /// Measures demand and decides, where it is time to; whether a count is another now.
    pub(super) async fn follow_demand(&mut self) -> Result<bool, Refusal> {
        let desired = self.desired()?;
        self.scalers.keep(&desired);
        let now = self.engine.clock.now();
        if self.scalers.due().is_none_or(|due| now < due) {
            return Ok(false);
        }
        (self.scalers.last, self.scalers.next) = (now, now.after(TICK));
        self.scalers.ask(&self.engine.target, &self.engine.clock);
        let ready = self.ready_instances();
        let instances: Vec<InstanceId> = ready.values().flatten().cloned().collect();
        let demand = match self.measure(&instances).await {
            Ok(demand) => demand,
            Err(error) => {
                // Without samples the counts stay as they are.
                for scaler in self.scalers.servers.values_mut() {
                    scaler.shown.trouble = Some(error.to_string());
                }
                return Ok(false);
            }
        };
        let events = self.decide(&desired, &ready, &demand);
        let changed = !events.is_empty();
        self.record(events.clone())?;
        for event in events {
            if let Event::Sized { component, count, because, .. } = event {
                self.tell(ProgressEvent::Sized { component, count, because });
            }
        }
        Ok(changed)
    }

    /// The counts that are to be others, by what was measured.
    fn decide(
        &mut self,
        desired: &Generation,
        ready: &BTreeMap<ComponentId, Vec<InstanceId>>,
        demand: &Demand,
    ) -> Vec<Event> {
        let wanted = self.wanted();
        let may_fall = self.state.rollout.is_none();
        let mut events = Vec::new();
        for (id, scaler) in &mut self.scalers.servers {
            let replicas = desired.content.components.get(id).and_then(|c| c.spec.as_server());
            let replicas = replicas.map_or(0, |server| server.policy.replicas);
            let was = wanted.get(id).copied().unwrap_or(replicas);
            let instances = ready.get(id).into_iter().flatten();
            let mut sample = scaler.meter.read(id, instances, demand);
            sample.number = scaler.number.as_ref().and_then(|number| number.as_ref().ok().copied());
            scaler.shown.trouble =
                scaler.number.as_ref().and_then(|number| number.as_ref().err().cloned());
            let since = self.state.sized.get(id).map_or(Timestamp(0), |sized| sized.at);
            let standing = Standing { wanted: was, since, may_fall };
            let decision = decide(&scaler.scale, &mut scaler.history, sample, standing);
            scaler.shown.because.clone_from(&decision.because);
            if decision.wanted != was && !self.state.scale.contains_key(id) {
                let (component, because) = (id.clone(), decision.because);
                events.push(Event::Sized { component, was, count: decision.wanted, because });
            }
        }
        events
    }

    /// The instances that serve, by what was seen last.
    fn ready_instances(&self) -> BTreeMap<ComponentId, Vec<InstanceId>> {
        let mut ready: BTreeMap<ComponentId, Vec<InstanceId>> = BTreeMap::new();
        let serves = |i: &&ObservedInstance| i.is_ready() && i.draining_since.is_none();
        if let Some(snapshot) = &*self.snapshot.borrow() {
            for instance in snapshot.observed.instances.iter().filter(serves) {
                ready.entry(instance.component.clone()).or_default().push(instance.id.clone());
            }
        }
        ready
    }

    async fn measure(&self, instances: &[InstanceId]) -> Result<Demand, TargetError> {
        let clock = &self.engine.clock;
        tokio::select! {
            biased;
            demand = self.engine.target.demand(&self.stack, instances) => demand,
            () = clock.sleep_until(clock.now().after(MEASURE)) => {
                let what = format!("measure what is asked of {}", self.stack);
                Err(TargetError::passing(what, format!("not done within {MEASURE}")))
            }
        }
    }

    /// What a count that is given back goes on from, where it follows demand: the count that was
    /// pinned, as far as the bounds allow.
    pub(super) fn given_back(&mut self, component: &ComponentId) -> Result<Option<Event>, Refusal> {
        let Some(pin) = self.state.scale.get(component).copied() else { return Ok(None) };
        let desired = self.desired()?;
        let server = desired.content.components.get(component).and_then(|c| c.spec.as_server());
        let Some(scale) = server.and_then(|server| server.policy.scale.as_ref()) else {
            return Ok(None);
        };
        let (component, count) = (component.clone(), scale.clamp(pin));
        let because = "given back".to_owned();
        Ok(Some(Event::Sized { component, was: pin, count, because }))
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::fixture::{generation, id, image, network, server};
    use kiln_model::observed::RolloutRecord;
    use kiln_model::quantity::Amount;
    use kiln_model::spec::scale::Targets;

    use super::*;
    use crate::journal::Sized;

    fn shop(number: u64, release: &str, min: u32, max: u32) -> Generation {
        let requests = Some(Amount(400_000));
        let target = Targets { requests_per_second: requests, ..Targets::default() };
        let scale = Scale { min, max, target, down_after: Millis::seconds(60), tolerance: 10 };
        let web = server("web").replicas(min.max(1)).scale(scale).spec();
        generation(number, vec![image("web", release), network("front", "10.0.0.0/24"), web])
    }

    fn count(state: &State, desired: &Generation, parent: Option<&Generation>) -> u32 {
        let web = &desired.content.components[&id("server.web")];
        let replicas = web.spec.as_server().unwrap().policy.replicas;
        wanted(state, desired, parent).get(&id("server.web")).copied().unwrap_or(replicas)
    }

    fn sized(count: u32) -> State {
        let mut state = State::default();
        let sized = Sized { count, at: Timestamp(0), because: String::new() };
        state.sized.insert(id("server.web"), sized);
        state
    }

    fn rolled_out(state: &mut State, generation: u64) {
        let (started, deadline) = (Timestamp(0), Timestamp(9));
        state.rollout = Some(RolloutRecord::new(generation, started, deadline));
    }

    #[test]
    fn a_decision_holds_within_the_bounds_and_a_pin_beyond_them() {
        let shop = shop(1, "v1", 2, 8);
        assert_eq!(count(&State::default(), &shop, None), 2, "to begin with");
        assert_eq!(count(&sized(7), &shop, None), 7);
        assert_eq!(count(&sized(20), &shop, None), 8);
        let mut pinned = sized(7);
        pinned.scale.insert(id("server.web"), 12);
        assert_eq!(count(&pinned, &shop, None), 12);
    }

    #[test]
    fn a_rollback_starts_with_no_fewer_than_there_are() {
        let (mut before, now) = (shop(3, "v1", 1, 4), shop(2, "v2", 1, 20));
        before.origin = Origin::Rollback { to: 1 };
        let mut state = sized(15);
        rolled_out(&mut state, 3);
        assert_eq!(count(&state, &before, Some(&now)), 15);
        state.rollout = None;
        assert_eq!(count(&state, &before, Some(&now)), 4, "once it is active its bounds count");
    }

    #[test]
    fn what_sleeps_is_proved_when_it_changes() {
        let (old, new) = (shop(1, "v1", 0, 4), shop(2, "v2", 0, 4));
        let mut state = sized(0);
        rolled_out(&mut state, 2);
        assert_eq!(count(&state, &new, Some(&old)), 1);
        let policy = shop(2, "v1", 0, 9);
        assert_eq!(count(&state, &policy, Some(&old)), 0, "a policy proves nothing");
        state.rollout = None;
        assert_eq!(count(&state, &new, Some(&old)), 0);
    }
}
