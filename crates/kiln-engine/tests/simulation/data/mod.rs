//! A stack with a database under simulation: changes, rollbacks, losses, hangs and long transactions,
//! while the engine is killed at any step; no acknowledged write is lost, no two take writes.

pub mod state;
mod target;

use std::sync::Arc;
use std::time::Duration;

use kiln_engine::actor::Actor;
use kiln_engine::engine::{Bounds, Engine, Handle, Keeper, Proposal};
use kiln_engine::store::Write;
use kiln_model::fixture::{database, generation, image, network, secret};
use kiln_model::generation::{Content, Origin};
use kiln_model::name::InstanceId;
use kiln_model::observed::{Ending, Phase};
use kiln_model::quantity::{Bytes, Millis};

use crate::flaw::Flaw;
use crate::laws;
use crate::rng::Rng;
use crate::run::RunOutcome;
use crate::store::SimStore;
use crate::world::{Shared, SimClock, World};

use target::DataTarget;

/// How long a stack may take to come to rest after the last deed.
const REST_BOUND: Duration = Duration::from_secs(90);
/// How long a deed may wait for its answer.
const DEED_BOUND: Duration = Duration::from_secs(60);
/// From one moment to the next.
const PULSE: Duration = Duration::from_millis(7);

/// One thing that happens.
#[derive(Debug, Clone)]
enum Deed {
    /// So much memory is declared, which replaces all instances.
    Apply(u64),
    Rollback,
    /// An instance is killed; the primary, where so wanted.
    Kill(bool),
    /// An instance answers nothing any more.
    Hang(bool),
    /// A standby receives nothing for so long.
    Deafen(u64),
    /// A client's transaction takes so long.
    Busy(u64),
    /// The engine is killed so many steps later.
    Crash(u64),
    Rest(u64),
}

fn deeds(rng: &mut Rng) -> Vec<Deed> {
    let mut deeds = vec![Deed::Apply(2), Deed::Rest(2_000)];
    for _ in 0..rng.below(8) + 3 {
        if rng.one_in(2) {
            deeds.push(Deed::Crash(rng.below(60) + 1));
        }
        if rng.one_in(6) {
            // One standby lags, another is lost, and soon after the primary.
            let soon = Deed::Rest(rng.below(100));
            deeds.extend([Deed::Deafen(9_000), Deed::Rest(300), Deed::Kill(false), soon]);
            deeds.push(Deed::Kill(true));
        }
        deeds.push(match rng.below(12) {
            0..=4 => Deed::Apply(rng.below(4) + 2),
            5 => Deed::Rollback,
            6 => Deed::Kill(true),
            7 => Deed::Kill(false),
            8 => Deed::Hang(rng.one_in(2)),
            9 => Deed::Deafen(rng.below(12_000)),
            10 => Deed::Busy(rng.below(12_000)),
            _ => Deed::Rest(500),
        });
        deeds.push(Deed::Rest(rng.below(3_000)));
    }
    deeds
}

fn content(memory: u64, replicas: u32) -> Content {
    let database = database("orders").memory(Bytes::mib(memory * 128)).replicas(replicas);
    let specs = vec![
        image("pg", "v1"),
        network("back", "10.0.0.0/24"),
        secret("orders"),
        database.deadline(Millis::seconds(20)).spec(),
    ];
    generation(1, specs).content
}

/// Runs a seed.
pub fn run(seed: u64, flaw: Flaw) -> RunOutcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let shared = runtime.block_on(async {
        let shared = Shared::new(seed, flaw);
        shared.lock().disturbed = true;
        let pulse = {
            let shared = shared.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(PULSE).await;
                    shared.lock().pulse();
                }
            })
        };
        live(seed, &shared).await;
        pulse.abort();
        shared
    });
    let mut world = shared.lock();
    RunOutcome {
        violations: std::mem::take(&mut world.violations),
        trace: std::mem::take(&mut world.trace),
    }
}

/// Engines one after the other, each until it is killed, while the deeds go on.
async fn live(seed: u64, shared: &Shared) {
    let mut rng = Rng::new(seed, "deeds");
    let replicas = u32::try_from(rng.below(3)).unwrap();
    shared.lock().data.synchronous = replicas > 0;
    let mut remaining = deeds(&mut rng).into_iter();
    loop {
        let target = Arc::new(DataTarget(shared.clone()));
        let (clock, store) = (SimClock(shared.clone()), SimStore(shared.clone()));
        let mut engine = Engine::new(target, Arc::new(clock), Arc::new(store));
        engine.planner = shared.lock().flaw.planner();
        engine.bounds = Bounds::default();
        let opened = Keeper::open(Arc::new(engine), "shop".parse().expect("a name"));
        let (keeper, handle) = match opened {
            Ok(opened) => opened,
            Err(error) => return shared.lock().violation(format!("no engine starts: {error}")),
        };
        let keeper = tokio::spawn(keeper.run());
        let ended = tokio::select! {
            biased;
            () = go_on(&mut remaining, replicas, shared, &handle) => true,
            () = shared.crash.notified() => false,
        };
        drop(handle);
        keeper.abort();
        let _ = keeper.await;
        if ended {
            return;
        }
        shared.lock().engine_is_gone();
        let down = shared.lock().chaos.below(500);
        tokio::time::sleep(Duration::from_millis(down)).await;
        shared.lock().engine_begins();
    }
}

async fn go_on(
    deeds: &mut impl Iterator<Item = Deed>,
    replicas: u32,
    shared: &Shared,
    handle: &Handle,
) {
    for deed in deeds {
        let done = tokio::time::timeout(DEED_BOUND, perform(&deed, replicas, shared, handle)).await;
        if done.is_err() {
            return shared.lock().violation(format!("{deed:?} gets no answer"));
        }
    }
    shared.lock().crash_in = None;
    // Until one that hangs has been given up.
    tokio::time::sleep(state::SILENCE.into()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    if tokio::time::timeout(REST_BOUND, rest(shared, handle)).await.is_err() {
        shared.lock().violation("the stack does not come to rest");
    }
    shared.lock().data_at_rest(replicas);
}

async fn rest(shared: &Shared, handle: &Handle) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Ok(snapshot) = handle.measure().await else { continue };
        let done = snapshot.report.outcome == kiln_model::plan::Outcome::Converged;
        if done && laws::state(&mut shared.lock()).rollout.is_none() {
            return;
        }
    }
}

async fn perform(deed: &Deed, replicas: u32, shared: &Shared, handle: &Handle) {
    shared.lock().say(format!("deed: {deed:?}"));
    match deed {
        Deed::Apply(memory) => {
            propose(shared, handle, content(*memory, replicas), Origin::Apply).await;
        }
        Deed::Rollback => {
            let state = laws::state(&mut shared.lock());
            let before = state.active.and_then(|n| n.checked_sub(1)).filter(|n| *n > 0);
            let stored = shared.lock().durable.iter().find_map(|write| match write {
                Write::Generation(g) if Some(g.number) == before => Some(g.clone()),
                _ => None,
            });
            let Some(stored) = stored else { return };
            let origin = Origin::Rollback { to: stored.number };
            propose(shared, handle, stored.content.clone(), origin).await;
        }
        Deed::Kill(primary) => shared.lock().strike(*primary, |node, _| {
            node.seen.phase = Phase::Ended { cause: Ending::Killed(9) };
        }),
        Deed::Hang(primary) => {
            shared.lock().strike(*primary, |node, now| node.hung_at = Some(now));
        }
        Deed::Deafen(millis) => shared.lock().strike(false, |node, now| {
            node.deaf_until = now.after(Millis(*millis));
        }),
        Deed::Busy(millis) => {
            let mut world = shared.lock();
            world.data.busy_until = world.now().after(Millis(*millis));
        }
        Deed::Crash(steps) => shared.lock().crash_in = Some(*steps),
        Deed::Rest(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
    }
    shared.changed.notify_one();
}

async fn propose(shared: &Shared, handle: &Handle, content: Content, origin: Origin) {
    let parent = laws::state(&mut shared.lock()).active;
    let proposal = Proposal { content, parent, origin, commit: None, by: Actor::Keeper };
    let answer = handle.commit(proposal).await;
    shared.lock().say(format!("answer: {:?}", answer.map_err(|e| e.to_string())));
}

impl World {
    /// Something befalls an instance that works.
    fn strike(
        &mut self,
        primary: bool,
        how: impl FnOnce(&mut state::Node, kiln_model::quantity::Timestamp),
    ) {
        let now = self.now();
        let takes = self.data.gate.primary.clone();
        let nodes = self.data.nodes.values().filter(|node| node.works(now));
        let nodes = nodes.filter(|node| (Some(&node.seen.id) == takes.as_ref()) == primary);
        let ids: Vec<InstanceId> = nodes.map(|node| node.seen.id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[usize::try_from(self.chaos.below(ids.len() as u64)).unwrap()].clone();
        self.say(format!("{id} is struck"));
        how(self.data.nodes.get_mut(&id).unwrap(), now);
        if takes == Some(id) {
            // Its sessions end with it, or never get an answer.
            self.data.pending = None;
        }
    }

    /// What the engine knew is forgotten, and what it was making is half made.
    fn engine_is_gone(&mut self) {
        let now = self.now();
        self.data.quorum.clear();
        self.data.members = (None, std::collections::BTreeSet::new());
        for node in self.data.nodes.values_mut().filter(|node| node.made_at > now) {
            node.half = true;
        }
        if self.flaw == Flaw::LostHead {
            self.data.head.clone_from(&self.data.head_on_disk);
        }
    }

    /// Another one begins, which hears of everybody by and by.
    fn engine_begins(&mut self) {
        self.crashed = false;
        self.say("the engine starts again");
        let now = self.now();
        for node in self.data.nodes.values_mut() {
            node.heard_at = now.after(Millis(self.data.rng.below(120)));
        }
    }

    /// At rest all that was acknowledged is there, and one takes writes.
    fn data_at_rest(&mut self, replicas: u32) {
        let now = self.now();
        let mut problems = Vec::new();
        let wanted = replicas as usize + 1;
        let alive = self.data.nodes.values().filter(|node| node.works(now)).count();
        if (alive, self.data.nodes.len()) != (wanted, wanted) {
            problems.push(format!("{alive} of {} work, not {wanted}", self.data.nodes.len()));
        }
        let holder = self.data.holder(now).map(|node| node.seen.id.clone());
        if holder.is_none() || self.data.gate.primary != holder {
            problems.push(format!("{:?} takes writes, not {holder:?}", self.data.gate.primary));
        }
        if self.data.gate.held_since.is_some() {
            problems.push("clients are held".to_owned());
        }
        let rows = self.data.head.as_ref().map(|head| &self.data.volumes[head].rows);
        let lost = |row: &&u64| rows.is_none_or(|rows| rows.binary_search(row).is_err());
        let lost = self.data.acknowledged.iter().filter(lost).count();
        if lost > 0 {
            problems.push(format!("{lost} rows are lost that were acknowledged"));
        }
        if self.data.acknowledged.is_empty() {
            problems.push("nothing was ever acknowledged".to_owned());
        }
        for problem in problems {
            self.violation(format!("at rest {problem}"));
        }
    }
}
