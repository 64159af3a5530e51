//! What outlives a crash of the engine: instances, networks, the gateway's table, and the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use kiln_engine::Clock;
use kiln_engine::store::Write;
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::observed::{ObservedInstance, ObservedNetwork};
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::route::RouteTable;
use kiln_model::scaling::Arrivals;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::data::state::Data;
use crate::flaw::Flaw;
use crate::rng::Rng;

/// Where simulated time begins.
const EPOCH: Timestamp = Timestamp(1_000_000);

/// An instance and what will become of it.
#[derive(Debug, Clone)]
pub struct Body {
    pub seen: ObservedInstance,
    /// When it gets ready; never, where the release is bad.
    pub ready_at: Option<Timestamp>,
    /// When it ends before it was ever ready.
    pub crash_at: Option<Timestamp>,
    /// When it was killed or made unready by the scenario.
    pub broken_at: Option<Timestamp>,
    /// How long it may be unready; without it, being unready is being dead.
    pub patience: Option<Millis>,
    /// How long it takes to end.
    pub stop: Millis,
    /// It fails what it is asked.
    pub erring: bool,
}

/// A request that an instance is answering.
#[derive(Debug, Clone)]
pub struct InFlight {
    pub instance: InstanceId,
    pub until: Timestamp,
}

/// Everything but the engine.
pub struct World {
    pub flaw: Flaw,
    pub start: Instant,
    pub bodies: BTreeMap<InstanceId, Body>,
    pub networks: BTreeMap<InstanceId, ObservedNetwork>,
    pub table: Option<RouteTable>,
    pub in_flight: Vec<InFlight>,
    /// Requests a second that come for the web servers, since when, and how many came before.
    pub rate: (u64, Timestamp, u64),
    /// Since when a request waits for a server that sleeps.
    pub waiting: Option<Timestamp>,
    /// Writes that a crash can't take away.
    pub durable: Vec<Write>,
    /// Writes that a store with a bug has promised too early.
    pub promised: Vec<Write>,
    /// Inputs of images whose instances never get ready.
    pub bad: Vec<kiln_model::digest::Digest>,
    /// Inputs of images whose instances get ready, and fail what they are asked.
    pub erring: Vec<kiln_model::digest::Digest>,
    pub delays: Rng,
    pub chaos: Rng,
    /// Steps until the engine is ended.
    pub crash_in: Option<u64>,
    pub crashed: bool,
    /// Instances are killed or made unready by the scenario.
    pub disturbed: bool,
    /// A request has been answered since the stack had an endpoint.
    pub served: bool,
    /// What there is of a database.
    pub data: Data,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
}

/// The world, shared, with what wakes those who wait for it.
#[derive(Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    /// Something that the target would notice.
    pub changed: Arc<Notify>,
    /// The engine has been ended.
    pub crash: Arc<Notify>,
}

impl Shared {
    pub fn new(seed: u64, flaw: Flaw) -> Self {
        let world = World {
            flaw,
            start: Instant::now(),
            bodies: BTreeMap::new(),
            networks: BTreeMap::new(),
            table: None,
            in_flight: Vec::new(),
            rate: (0, EPOCH, 0),
            waiting: None,
            durable: Vec::new(),
            promised: Vec::new(),
            bad: Vec::new(),
            erring: Vec::new(),
            delays: Rng::new(seed, "delays"),
            chaos: Rng::new(seed, "chaos"),
            crash_in: None,
            crashed: false,
            disturbed: false,
            served: false,
            data: Data::new(seed),
            violations: Vec::new(),
            trace: Vec::new(),
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            changed: Arc::new(Notify::new()),
            crash: Arc::new(Notify::new()),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// A point at which the engine may be ended. It takes a little time.
    pub async fn tick(&self) {
        let delay = {
            let mut world = self.lock();
            if let Some(left) = &mut world.crash_in {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    world.crash_now();
                    self.crash.notify_one();
                }
            }
            if world.crashed { None } else { Some(world.delays.below(4)) }
        };
        match delay {
            Some(0) => tokio::task::yield_now().await,
            Some(millis) => tokio::time::sleep(std::time::Duration::from_millis(millis)).await,
            None => std::future::pending().await,
        }
    }
}

impl World {
    pub fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        EPOCH.after(Millis(elapsed))
    }

    /// What has come for the web servers so far, beside the clients of the scenario.
    pub fn arrivals(&self) -> Arrivals {
        let (rate, since, before) = self.rate;
        let arrived = before + rate * self.now().since(since).0 / 1000;
        Arrivals { arrived, waiting: u32::from(self.waiting.is_some()), refused: 0 }
    }

    /// One more comes.
    pub fn arrive(&mut self) {
        self.rate.2 += 1;
    }

    /// Whether nobody asks for anything at present, by a deed.
    pub fn is_quiet(&self) -> bool {
        self.rate.0 == 0 && self.rate.1 > EPOCH
    }

    /// So many come each second from now on.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = (rate, self.now(), self.arrivals().arrived);
    }

    pub fn crash_now(&mut self) {
        self.crashed = true;
        self.crash_in = None;
        // What was promised and not yet written is gone.
        self.promised.clear();
        self.say("the engine is killed");
    }

    pub fn say(&mut self, what: impl std::fmt::Display) {
        let line = format!("{:>8} {what}", self.now().0 - EPOCH.0);
        self.trace.push(line);
    }

    pub fn violation(&mut self, what: impl std::fmt::Display) {
        let text = format!("at {}: {what}", self.now().0 - EPOCH.0);
        self.say(format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    /// An instance answers: each request that is simulated stands for many.
    pub fn answer(&mut self, instance: &InstanceId) {
        if let Some(body) = self.bodies.get_mut(instance) {
            body.seen.answers.responses[if body.erring { 4 } else { 1 }] += 20;
        }
    }

    /// The ready instances of a component.
    pub fn ready(&self, component: &ComponentId) -> usize {
        self.bodies.values().filter(|b| b.seen.component == *component && b.seen.is_ready()).count()
    }
}

/// The simulated clock: it jumps to the next instant at which anything happens.
#[derive(Clone)]
pub struct SimClock(pub Shared);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.lock().now()
    }

    async fn sleep_until(&self, at: Timestamp) {
        let span = at.since(self.now());
        tokio::time::sleep(span.into()).await;
    }
}
