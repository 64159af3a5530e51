//! The sweep: everything, one after the other, without end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kiln_engine::guard::Source;
use kiln_model::name::StackName;

use super::pace::{Pace, timed};
use super::strangers::Strangers;
use super::{Guard, lock};
use crate::guard::Whole;
use crate::network::Networks;

/// Thousandths of one processor that it may take, and what it may save up.
const SHARE: u32 = 3;
const BURST: Duration = Duration::from_millis(4);
/// A round begins no sooner than so long after the one before.
const ROUND: Duration = Duration::from_secs(1);
/// With more instances than these, networks are swept in one of so many rounds only.
const FEW: usize = 16;
const NETWORK_ROUNDS: u64 = 4;
/// So many processes of the machine are looked at in one go.
const CHUNK: usize = 32;

/// What is looked at in one go.
enum Item {
    Instance(String, Whole),
    Network(String),
    Strangers(Vec<i32>),
}

/// See the module.
pub(super) struct Sweep {
    pace: Pace,
    left: VecDeque<Item>,
    began: Option<Instant>,
    rounds: u64,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        Self { pace: Pace::new(SHARE, BURST, now), left: VecDeque::new(), began: None, rounds: 0 }
    }

    /// Goes on as far as it may.
    pub(super) fn step(
        &mut self,
        guard: &Guard,
        networks: &Networks,
        strangers: &Strangers,
        own: &[i32],
    ) {
        while self.pace.may(Instant::now()) {
            let Some(item) = self.left.pop_front() else {
                let now = Instant::now();
                if self.began.is_some_and(|began| now.saturating_duration_since(began) < ROUND) {
                    return;
                }
                let worked = timed(|| self.begin(guard, own, now));
                self.pace.spend(worked);
                continue;
            };
            self.pace.spend(timed(|| take(&item, guard, networks, strangers)));
        }
    }

    /// Looks at all there is, however long it takes: the guard itself was kept from running.
    pub(super) fn all(
        &mut self,
        guard: &Guard,
        networks: &Networks,
        strangers: &Strangers,
        own: &[i32],
    ) {
        self.begin(guard, own, Instant::now());
        for item in std::mem::take(&mut self.left) {
            take(&item, guard, networks, strangers);
        }
    }

    fn begin(&mut self, guard: &Guard, own: &[i32], now: Instant) {
        if let Some(began) = self.began.replace(now) {
            lock(&guard.report).round(now.saturating_duration_since(began));
        }
        guard.reconcile();
        let instances = guard.instances_now();
        let whole = instances.len() <= FEW || self.rounds.is_multiple_of(NETWORK_ROUNDS);
        self.rounds += 1;
        let how = if whole { Whole::All } else { Whole::Inside };
        let items = instances.iter().filter(|it| it.is_sound());
        self.left = items.map(|it| Item::Instance(it.id.clone(), how)).collect();
        if whole {
            let networks = guard.networks_now().into_iter();
            self.left.extend(networks.map(|it| Item::Network(it.labels.id.to_string())));
        }
        if !instances.is_empty() {
            let pids = Strangers::processes(own);
            self.left.extend(pids.chunks(CHUNK).map(|chunk| Item::Strangers(chunk.to_vec())));
        }
    }
}

fn take(item: &Item, guard: &Guard, networks: &Networks, strangers: &Strangers) {
    match item {
        Item::Instance(id, whole) => {
            if let Some(watched) = guard.instance(id) {
                guard.look(&watched, *whole, Source::Sweep);
            }
        }
        Item::Network(id) => {
            if let Some(stack) = changed(guard, networks, id) {
                guard.changes.wake(&stack);
            }
        }
        Item::Strangers(pids) => {
            strangers.look(guard, pids, Source::Sweep);
        }
    }
}

/// The stack of a network that has changed.
pub(super) fn changed(guard: &Guard, networks: &Networks, id: &str) -> Option<StackName> {
    let network = guard.network(id)?;
    network.has_changed(networks).then(|| network.labels.stack.clone())
}
