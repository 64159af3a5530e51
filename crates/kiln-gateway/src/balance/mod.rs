//! Which backend gets the next request: the less loaded of two drawn by weight, unless the
//! endpoint asks for the least loaded of all, or for the same one for the same client.
//!
//! Power of two choices (Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing", 2001): nearly as even as asking all backends, at the cost of asking two, and
//! without the herd that follows the one least loaded. Both draws follow the weights; the load
//! is compared relative to the weight, and a tie goes to the first draw, so that an idle
//! system shares by weight as well.

pub(crate) mod hash;
pub(crate) mod split;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use kiln_model::handling::Balance;

use crate::peer::Peer;

/// A backend and its share.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) peer: Arc<Peer>,
    pub(crate) weight: u16,
}

/// The backends of one route, in the order of the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    list: Box<[Entry]>,
    total: u64,
    balance: Balance,
    /// Requests that one backend is given at a time.
    capacity: Option<u32>,
}

/// A backend, with what its name hashes to.
#[derive(Debug, Clone)]
struct Entry {
    choice: Choice,
    hash: u64,
}

/// What is asked of the backend.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// The backend that has just failed: it is taken only when it is the only one.
    pub(crate) avoid: Option<&'a Arc<Peer>>,
    /// The client, where backends are chosen by it.
    pub(crate) client: u64,
}

/// Draws that may hit an ejected backend before all backends are looked at.
const DRAWS: usize = 4;

impl Choices {
    /// Weights of 0 count as 1: who serves is said by being in the table at all.
    pub(crate) fn new(list: Vec<Choice>, balance: Balance, capacity: Option<u32>) -> Self {
        let total = list.iter().map(|choice| u64::from(choice.weight.max(1))).sum();
        let entry = |choice: Choice| {
            let hash = hash::of_bytes(choice.peer.load().instance().as_str().as_bytes());
            Entry { choice, hash }
        };
        Self { list: list.into_iter().map(entry).collect(), total, balance, capacity }
    }

    /// How many backends there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The backend for the next request, if there is any. Ejected and failed ones, and those
    /// that have all that they may be given, are taken only when there is no other.
    pub(crate) fn pick(&self, wish: Wish<'_>) -> Option<&Arc<Peer>> {
        match &*self.list {
            [] => None,
            [only] => Some(&only.choice.peer),
            _ => {
                let entry = match self.balance {
                    Balance::PowerOfTwo => self.less_loaded_of_two(wish),
                    Balance::LeastConnections => self.least_loaded(wish),
                    Balance::Hash(_) => self.hashed(wish),
                };
                Some(&entry.choice.peer)
            }
        }
    }

    fn is_usable(&self, entry: &Entry, wish: Wish<'_>) -> bool {
        let peer = &entry.choice.peer;
        !peer.is_ejected()
            && wish.avoid.is_none_or(|avoid| !Arc::ptr_eq(avoid, peer))
            && self.capacity.is_none_or(|capacity| peer.load().total() < capacity)
    }

    fn less_loaded_of_two(&self, wish: Wish<'_>) -> &Entry {
        let usable = |entry: &Entry| self.is_usable(entry, wish);
        let first = self.draw_where(None, usable);
        let second = self.draw_where(Some(first), usable);
        let (first, second) = (&self.list[first], &self.list[second]);
        if usable(second) && (!usable(first) || less_loaded(&second.choice, &first.choice)) {
            second
        } else {
            first
        }
    }

    /// Of equal ones a drawn one, so that an idle system shares by weight.
    fn least_loaded(&self, wish: Wish<'_>) -> &Entry {
        let mut best = &self.list[self.draw_where(None, |entry| self.is_usable(entry, wish))];
        let usable = self.list.iter().filter(|entry| self.is_usable(entry, wish));
        for entry in usable {
            if less_loaded(&entry.choice, &best.choice) {
                best = entry;
            }
        }
        best
    }

    fn hashed(&self, wish: Wish<'_>) -> &Entry {
        let score = |entry: &Entry| {
            let usable = self.is_usable(entry, wish);
            (usable, hash::score(entry.hash, wish.client, entry.choice.weight))
        };
        let (mut best, mut highest) = (&self.list[0], score(&self.list[0]));
        for entry in &self.list[1..] {
            let score = score(entry);
            if score > highest {
                (best, highest) = (entry, score);
            }
        }
        best
    }

    /// Draws by weight until one is usable; then the first usable one; then any.
    fn draw_where(&self, except: Option<usize>, usable: impl Fn(&Entry) -> bool) -> usize {
        let mut drawn = 0;
        for _ in 0..DRAWS {
            drawn = self.draw(except);
            if usable(&self.list[drawn]) {
                return drawn;
            }
        }
        let rest = self.list.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        let found = rest.into_iter().find(|(_, entry)| usable(entry));
        found.map_or(drawn, |(index, _)| index)
    }

    fn draw(&self, except: Option<usize>) -> usize {
        let weight = |index: usize| u64::from(self.list[index].choice.weight.max(1));
        let left_out = except.map_or(0, weight);
        let mut point = random() % (self.total - left_out).max(1);
        for index in 0..self.list.len() {
            if Some(index) == except {
                continue;
            }
            if point < weight(index) {
                return index;
            }
            point -= weight(index);
        }
        0
    }
}

/// Whether `a` has less in flight than `b`, each relative to its weight.
fn less_loaded(a: &Choice, b: &Choice) -> bool {
    let a_load = u64::from(a.peer.load().total()) * u64::from(b.weight.max(1));
    let b_load = u64::from(b.peer.load().total()) * u64::from(a.weight.max(1));
    a_load < b_load
}

/// xorshift64* (Vigna, 2016), one state per thread: even enough to balance, and free of locks.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8) | 1);
    }
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{InFlight, Unit};

    fn choices(weights: &[u16]) -> Choices {
        balanced(weights, Balance::PowerOfTwo, None)
    }

    fn balanced(weights: &[u16], balance: Balance, capacity: Option<u32>) -> Choices {
        let choice = |(index, weight): (usize, &u16)| Choice {
            peer: Arc::new(Peer::for_test(&format!("web-{index}"))),
            weight: *weight,
        };
        Choices::new(weights.iter().enumerate().map(choice).collect(), balance, capacity)
    }

    fn share(choices: &Choices, rounds: u32) -> Vec<u32> {
        let mut counts = vec![0; choices.list.len()];
        for _ in 0..rounds {
            let peer = choices.pick(Wish::default()).unwrap();
            let index =
                choices.list.iter().position(|c| Arc::ptr_eq(&c.choice.peer, peer)).unwrap();
            counts[index] += 1;
        }
        counts
    }

    #[test]
    fn an_idle_system_shares_by_weight() {
        let counts = share(&choices(&[90, 10]), 10_000);
        assert!((700..1300).contains(&counts[1]), "{counts:?}");
        let counts = share(&choices(&[1; 4]), 10_000);
        assert!(counts.iter().all(|n| (2000..3000).contains(n)), "{counts:?}");
    }

    #[test]
    fn in_flight_requests_even_out_by_weight() {
        let choices = choices(&[3, 1]);
        let mut held: Vec<InFlight> = Vec::new();
        for _ in 0..400 {
            let peer = choices.pick(Wish::default()).unwrap();
            held.push(peer.load().enter(Unit::Request).unwrap());
        }
        let heavy = choices.list[0].choice.peer.load().total();
        assert!((290..310).contains(&heavy), "{heavy}");
    }

    #[test]
    fn ejected_and_failed_backends_are_passed_over_but_never_all() {
        let choices = choices(&[1, 1, 1]);
        choices.list[0].choice.peer.connect_failed(&std::io::ErrorKind::ConnectionRefused.into());
        let failed = Arc::clone(&choices.list[1].choice.peer);
        for _ in 0..200 {
            let peer = choices.pick(Wish { avoid: Some(&failed), client: 0 }).unwrap();
            assert!(Arc::ptr_eq(peer, &choices.list[2].choice.peer));
        }
        for entry in &choices.list {
            entry.choice.peer.connect_failed(&std::io::ErrorKind::ConnectionRefused.into());
        }
        assert!(choices.pick(Wish::default()).is_some());
        assert!(Choices::default().pick(Wish::default()).is_none());
    }

    #[test]
    fn the_least_loaded_one_is_found_among_many() {
        let choices = balanced(&[1; 20], Balance::LeastConnections, None);
        let mut held: Vec<InFlight> = Vec::new();
        for _ in 0..60 {
            let peer = choices.pick(Wish::default()).unwrap();
            held.push(peer.load().enter(Unit::Request).unwrap());
        }
        assert!(choices.list.iter().all(|entry| entry.choice.peer.load().total() == 3));
    }

    #[test]
    fn a_client_stays_and_only_those_of_a_lost_backend_move() {
        let balance = Balance::Hash(kiln_model::handling::HashKey::Address);
        let choices = balanced(&[1, 1, 1, 2], balance, None);
        let of = |client: u32| {
            let client = hash::of_bytes(&client.to_be_bytes());
            let peer = choices.pick(Wish { avoid: None, client }).unwrap();
            choices.list.iter().position(|e| Arc::ptr_eq(&e.choice.peer, peer)).unwrap()
        };
        let before: Vec<usize> = (0..5000).map(of).collect();
        assert_eq!(before, (0..5000).map(of).collect::<Vec<_>>());
        for (index, share) in [1000, 1000, 1000, 2000].into_iter().enumerate() {
            let count = before.iter().filter(|found| **found == index).count();
            assert!(count.abs_diff(share) < 150, "{index}: {count}");
        }
        choices.list[1].choice.peer.connect_failed(&std::io::ErrorKind::ConnectionRefused.into());
        for (client, before) in before.into_iter().enumerate() {
            let after = of(u32::try_from(client).unwrap());
            assert!(if before == 1 { after != 1 } else { after == before }, "{client}");
        }
    }

    #[test]
    fn who_has_all_that_it_may_be_given_is_passed_over() {
        for balance in [Balance::PowerOfTwo, Balance::LeastConnections] {
            let choices = balanced(&[1, 1, 1], balance, Some(2));
            let mut held: Vec<InFlight> = Vec::new();
            for _ in 0..6 {
                let peer = choices.pick(Wish::default()).unwrap();
                held.push(peer.load().enter(Unit::Request).unwrap());
            }
            assert!(choices.list.iter().all(|entry| entry.choice.peer.load().total() == 2));
        }
    }
}
