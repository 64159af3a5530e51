//! One run: deeds, traffic, crashes and restarts, until all is at rest.

use std::sync::Arc;
use std::time::Duration;

use kiln_engine::engine::{Bounds, Engine, Handle, Keeper};

use crate::flaw::Flaw;
use crate::laws;
use crate::scenario::{self, Deed};
use crate::store::SimStore;
use crate::target::SimTarget;
use crate::world::{Shared, SimClock};

/// How long a stack may take to come to rest after the last deed.
const REST_BOUND: Duration = Duration::from_secs(90);

/// How long a deed may wait for its answer: every wait has a deadline.
const DEED_BOUND: Duration = Duration::from_secs(60);

/// What a run showed.
pub struct RunOutcome {
    /// Laws that were broken.
    pub violations: Vec<String>,
    /// What happened, line by line.
    pub trace: Vec<String>,
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
        let traffic = tokio::spawn(scenario::traffic(seed, shared.clone()));
        live(seed, &shared).await;
        traffic.abort();
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
    let deeds = scenario::deeds(seed, shared);
    let mut remaining = deeds.into_iter();
    loop {
        let Some((keeper, handle)) = start(shared) else { return };
        let keeper = tokio::spawn(keeper.run());
        let ended = tokio::select! {
            biased;
            ended = go_on(&mut remaining, shared, &handle) => ended,
            () = shared.crash.notified() => false,
        };
        drop(handle);
        keeper.abort();
        // The tasks of its steps end with it.
        let _ = keeper.await;
        if ended {
            return;
        }
        let down = shared.lock().chaos.below(500);
        tokio::time::sleep(Duration::from_millis(down)).await;
        shared.lock().crashed = false;
        shared.lock().say("the engine starts again");
    }
}

type SimKeeper = Keeper<SimTarget, SimClock, SimStore>;

fn start(shared: &Shared) -> Option<(SimKeeper, Handle)> {
    let mut engine = Engine::new(
        Arc::new(SimTarget(shared.clone())),
        Arc::new(SimClock(shared.clone())),
        Arc::new(SimStore(shared.clone())),
    );
    engine.planner = shared.lock().flaw.planner();
    engine.bounds = Bounds::default();
    match Keeper::open(Arc::new(engine), "shop".parse().expect("a name")) {
        Ok(opened) => Some(opened),
        Err(error) => {
            shared.lock().violation(format!("the engine does not start again: {error}"));
            None
        }
    }
}

/// The deeds that are left, then rest; whether the end was reached.
async fn go_on(deeds: &mut impl Iterator<Item = Deed>, shared: &Shared, handle: &Handle) -> bool {
    for deed in deeds {
        let done = tokio::time::timeout(DEED_BOUND, scenario::perform(&deed, shared, handle)).await;
        if done.is_err() {
            shared.lock().violation(format!("{deed:?} gets no answer"));
            break;
        }
    }
    shared.lock().crash_in = None;
    let rested = tokio::time::timeout(REST_BOUND, rest(shared, handle)).await;
    let mut world = shared.lock();
    if rested.is_err() {
        world.violation("the stack does not come to rest");
    }
    laws::always(&mut world);
    laws::at_rest(&mut world);
    true
}

/// Waits until nothing is left to do.
async fn rest(shared: &Shared, handle: &Handle) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Ok(snapshot) = handle.measure().await else { continue };
        let done = snapshot.report.outcome == kiln_model::plan::Outcome::Converged;
        // What was measured may have been decided on since.
        let state = laws::state(&mut shared.lock());
        if done && state.rollout.is_none() && state.sized == snapshot.state.sized {
            // What was replaced may be kept for a while, which leaves nothing to do.
            let kept = snapshot.observed.instances.iter();
            let names = &snapshot.desired.content.components;
            let mut kept =
                kept.filter(|i| names.get(&i.component).is_some_and(|c| c.digest != i.digest));
            if kept.next().is_none() {
                return;
            }
        }
    }
}
