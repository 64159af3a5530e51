//! Standbys that receive nothing although there is something to be received: one that has gone
//! further than the one that was promoted can never follow that, and says nothing of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kiln_model::name::InstanceId;

use super::lock;

/// How long a standby may be behind without coming further. It is far more than a reconnection
/// takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Standbys that are behind: how far each is, and since when.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<BTreeMap<InstanceId, (u64, Instant)>>);

impl Strays {
    /// Takes in that a standby is at `position`, and how far its primary is, where that answers and
    /// does not send to it. Whether it has been so for too long.
    pub(super) fn is_stray(
        &self,
        standby: &InstanceId,
        position: u64,
        ahead: Option<u64>,
        now: Instant,
    ) -> bool {
        let mut strays = lock(&self.0);
        if ahead.is_none_or(|ahead| ahead <= position) {
            strays.remove(standby);
            return false;
        }
        let known = strays.entry(standby.clone()).or_insert((position, now));
        if known.0 != position {
            *known = (position, now);
        }
        now.duration_since(known.1) >= PATIENCE
    }

    /// Forgets those that are gone.
    pub(super) fn keep(&self, here: impl Fn(&InstanceId) -> bool) {
        lock(&self.0).retain(|id, _| here(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_a_stray_when_it_is_behind_and_stays_where_it_is() {
        let strays = Strays::default();
        let (id, start) = ("orders-1".parse::<InstanceId>().unwrap(), Instant::now());
        let at = |seconds, position, ahead| {
            strays.is_stray(&id, position, ahead, start + Duration::from_secs(seconds))
        };
        assert!(!at(0, 10, Some(20)) && !at(9, 10, Some(30)));
        assert!(at(10, 10, Some(30)));
        assert!(!at(11, 12, Some(30)), "it comes further");
        assert!(!at(20, 12, Some(30)) && at(21, 12, Some(30)));
        assert!(!at(22, 12, None), "nobody is known to be ahead of it");
        assert!(!at(31, 12, Some(30)), "counted anew");
        strays.keep(|_| false);
        assert!(!at(60, 12, Some(30)));
    }
}
