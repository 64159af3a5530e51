//! Which backend gets the next request: the less loaded of two drawn by weight.
//!
//! Power of two choices (Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing", 2001): nearly as even as asking all backends, at the cost of asking two, and
//! without the herd that follows the one least loaded. Both draws follow the weights; the load
//! is compared relative to the weight, and a tie goes to the first draw, so that an idle
//! system shares by weight as well.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

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
    list: Box<[Choice]>,
    total: u64,
}

/// Draws that may hit an ejected backend before all backends are looked at.
const DRAWS: usize = 4;

impl Choices {
    /// Weights of 0 count as 1: who serves is said by being in the table at all.
    pub(crate) fn new(list: Vec<Choice>) -> Self {
        let total = list.iter().map(|choice| u64::from(choice.weight.max(1))).sum();
        Self { list: list.into(), total }
    }

    /// The backend for the next request, if there is any. `avoid` is the one that has just
    /// failed: it is taken only when it is the only one. The same goes for ejected ones.
    pub(crate) fn pick(&self, avoid: Option<&Arc<Peer>>) -> Option<&Arc<Peer>> {
        match &*self.list {
            [] => None,
            [only] => Some(&only.peer),
            _ => Some(&self.pick_of_many(avoid).peer),
        }
    }

    fn pick_of_many(&self, avoid: Option<&Arc<Peer>>) -> &Choice {
        let usable = |choice: &Choice| {
            !choice.peer.is_ejected() && avoid.is_none_or(|peer| !Arc::ptr_eq(peer, &choice.peer))
        };
        let first = self.draw_where(None, usable);
        let second = self.draw_where(Some(first), usable);
        let (first, second) = (&self.list[first], &self.list[second]);
        if usable(second) && (!usable(first) || less_loaded(second, first)) {
            second
        } else {
            first
        }
    }

    /// Draws by weight until one is usable; then the first usable one; then any.
    fn draw_where(&self, except: Option<usize>, usable: impl Fn(&Choice) -> bool) -> usize {
        let mut drawn = 0;
        for _ in 0..DRAWS {
            drawn = self.draw(except);
            if usable(&self.list[drawn]) {
                return drawn;
            }
        }
        let rest = self.list.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        let found = rest.into_iter().find(|(_, choice)| usable(choice));
        found.map_or(drawn, |(index, _)| index)
    }

    fn draw(&self, except: Option<usize>) -> usize {
        let left_out = except.map_or(0, |index| u64::from(self.list[index].weight.max(1)));
        let mut point = random() % (self.total - left_out).max(1);
        for (index, choice) in self.list.iter().enumerate() {
            if Some(index) == except {
                continue;
            }
            let weight = u64::from(choice.weight.max(1));
            if point < weight {
                return index;
            }
            point -= weight;
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
        let choice = |(index, weight): (usize, &u16)| Choice {
            peer: Arc::new(Peer::for_test(&format!("web-{index}"))),
            weight: *weight,
        };
        Choices::new(weights.iter().enumerate().map(choice).collect())
    }

    fn share(choices: &Choices, rounds: u32) -> Vec<u32> {
        let mut counts = vec![0; choices.list.len()];
        for _ in 0..rounds {
            let peer = choices.pick(None).unwrap();
            let index = choices.list.iter().position(|c| Arc::ptr_eq(&c.peer, peer)).unwrap();
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
            let peer = choices.pick(None).unwrap();
            held.push(peer.load().enter(Unit::Request).unwrap());
        }
        let heavy = choices.list[0].peer.load().total();
        assert!((290..310).contains(&heavy), "{heavy}");
    }

    #[test]
    fn ejected_and_failed_backends_are_passed_over_but_never_all() {
        let choices = choices(&[1, 1, 1]);
        choices.list[0].peer.connect_failed(&std::io::ErrorKind::ConnectionRefused.into());
        let failed = Arc::clone(&choices.list[1].peer);
        for _ in 0..200 {
            let peer = choices.pick(Some(&failed)).unwrap();
            assert!(Arc::ptr_eq(peer, &choices.list[2].peer));
        }
        for choice in &choices.list {
            choice.peer.connect_failed(&std::io::ErrorKind::ConnectionRefused.into());
        }
        assert!(choices.pick(None).is_some());
        assert!(Choices::default().pick(None).is_none());
    }
}
