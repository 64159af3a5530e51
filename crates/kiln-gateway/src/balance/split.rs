//! The backends of a route, of which some may get a fixed share of the traffic.
//!
//! The share is exact, not drawn: of a thousand requests, whatever their order, the chosen
//! instances get so many and no more, however fast they answer. Where clients stay with an
//! instance, so large a share of the clients goes to the chosen ones, always the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kiln_model::handling::Balance;
use kiln_model::route::Split;

use super::{Choice, Choices, Wish};
use crate::peer::Peer;

/// The backends of one route.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    rest: Choices,
    share: Option<Share>,
}

/// Backends with a fixed share.
#[derive(Debug)]
struct Share {
    chosen: Choices,
    permille: u64,
    /// Clients stay where they are led.
    sticky: bool,
    /// Thousandths of a request that are owed to the chosen, and what they got.
    owed: AtomicU64,
}

impl Backends {
    pub(crate) fn new(
        list: Vec<Choice>,
        split: Option<&Split>,
        balance: &Balance,
        capacity: Option<u32>,
    ) -> Self {
        let chosen = |choice: &Choice| {
            split.is_some_and(|s| s.instances.contains(choice.peer.load().instance()))
        };
        let (chosen, rest): (Vec<_>, Vec<_>) = list.into_iter().partition(chosen);
        let choices = |list| Choices::new(list, balance.clone(), capacity);
        let permille = split.map_or(0, |s| u64::from(s.permille.min(1000)));
        let sticky = matches!(balance, Balance::Hash(_));
        let share = (!chosen.is_empty()).then(|| Share {
            chosen: choices(chosen),
            permille,
            sticky,
            owed: AtomicU64::new(0),
        });
        Self { rest: choices(rest), share }
    }

    /// How many backends there are.
    pub(crate) fn len(&self) -> usize {
        self.rest.len() + self.share.as_ref().map_or(0, |share| share.chosen.len())
    }

    /// The backend for the next request, if there is any. What is tried again goes to those
    /// without a fixed share.
    pub(crate) fn pick(&self, wish: Wish<'_>) -> Option<&Arc<Peer>> {
        let Some(share) = &self.share else { return self.rest.pick(wish) };
        if wish.avoid.is_none() && share.is_due(wish.client) {
            let peer = share.chosen.pick(wish).filter(|peer| !peer.is_ejected());
            if peer.is_some() {
                return peer;
            }
        }
        self.rest.pick(wish).or_else(|| share.chosen.pick(wish))
    }
}

impl Share {
    fn is_due(&self, client: u64) -> bool {
        if self.sticky {
            return client % 1000 < self.permille;
        }
        self.owed.fetch_add(self.permille, Relaxed) % 1000 + self.permille >= 1000
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::handling::HashKey;

    use super::*;

    fn backends(permille: u16, balance: &Balance) -> (Backends, Vec<Arc<Peer>>) {
        let names = ["web-0", "web-1", "web-2", "web-9"];
        let peers: Vec<_> = names.map(|name| Arc::new(Peer::for_test(name))).into();
        let list = peers.iter().map(|peer| Choice { peer: peer.clone(), weight: 100 }).collect();
        let split = Split {
            component: "server.web".parse().unwrap(),
            instances: vec!["web-9".parse().unwrap()],
            permille,
        };
        (Backends::new(list, Some(&split), balance, None), peers)
    }

    fn share(backends: &Backends, canary: &Arc<Peer>, rounds: u64) -> u64 {
        let hit = |client: &u64| {
            let client = client.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
            Arc::ptr_eq(backends.pick(Wish { avoid: None, client }).unwrap(), canary)
        };
        (0..rounds).filter(hit).count() as u64
    }

    #[test]
    fn the_share_is_exact() {
        for permille in [10, 100, 333, 500, 1000] {
            let (backends, peers) = backends(permille, &Balance::PowerOfTwo);
            assert_eq!(backends.len(), 4);
            let got = share(&backends, &peers[3], 10_000);
            assert!(got.abs_diff(u64::from(permille) * 10) <= 1, "{permille}: {got}");
        }
    }

    #[test]
    fn clients_that_stay_stay() {
        let (backends, peers) = backends(100, &Balance::Hash(HashKey::Address));
        let got = share(&backends, &peers[3], 10_000);
        assert!((900..1100).contains(&got), "{got}");
        assert_eq!(share(&backends, &peers[3], 10_000), got, "the same ones again");
    }

    #[test]
    fn what_is_tried_again_and_what_nobody_else_takes() {
        let (backends, peers) = backends(1000, &Balance::PowerOfTwo);
        let again = Wish { avoid: Some(&peers[3]), client: 0 };
        assert!((0..100).all(|_| !Arc::ptr_eq(backends.pick(again).unwrap(), &peers[3])));
        peers[3].connect_failed(&std::io::ErrorKind::ConnectionRefused.into());
        assert_eq!(share(&backends, &peers[3], 100), 0, "it is ejected");
    }
}
