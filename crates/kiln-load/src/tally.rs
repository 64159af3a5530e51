//! What became of what was asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Kind;

/// Where clients note what becomes of what they ask.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Tally>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Tally> {
        // Counting does not stop half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answered_in(&self, kind: Kind, phase: usize, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.lock().times.entry((phase, kind)).or_default().push(micros);
    }

    pub(crate) fn failed(&self, failure: String) {
        self.lock().failures.push(failure);
    }

    /// A connection was found to have been ended as the protocol has it.
    pub(crate) fn reopened(&self) {
        self.lock().reopened += 1;
    }

    pub(crate) fn answered(&self) -> u64 {
        self.lock().answered()
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        std::mem::take(&mut *self.lock())
    }
}

/// What became of what was asked.
#[derive(Debug, Default)]
pub struct Tally {
    /// Microseconds, by phase and kind, in the order of the answers.
    times: BTreeMap<(usize, Kind), Vec<u32>>,
    /// Each failure: what was asked, and what came instead of an answer.
    pub failures: Vec<String>,
    /// Connections that were found to have ended by the protocol's own signal before anything was
    /// sent on them.
    pub reopened: u64,
}

impl Tally {
    /// How much was answered well.
    pub fn answered(&self) -> u64 {
        self.times.values().map(|times| times.len() as u64).sum()
    }

    /// How much of one kind was, in one phase.
    pub fn count(&self, phase: usize, kind: Kind) -> usize {
        self.times.get(&(phase, kind)).map_or(0, Vec::len)
    }

    /// The time that `share` (0 to 1) of the answers of some kinds stayed below, in one phase; zero
    /// where there were none.
    pub fn quantile(&self, phase: usize, kinds: &[Kind], share: f64) -> Duration {
        let of_phase = kinds.iter().filter_map(|kind| self.times.get(&(phase, *kind)));
        let mut times: Vec<u32> = of_phase.flatten().copied().collect();
        times.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list that fits into memory"
        )]
        let rank = (times.len() as f64 * share.clamp(0.0, 1.0)) as usize;
        let last = times.len().saturating_sub(1);
        Duration::from_micros(times.get(rank.min(last)).copied().unwrap_or(0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_one_phase_and_the_kinds_that_are_asked_for() {
        let ledger = Ledger::default();
        for n in 1..=100 {
            ledger.answered_in(Kind::Http2, 1, Duration::from_millis(n));
        }
        ledger.answered_in(Kind::Tcp, 1, Duration::from_secs(9));
        ledger.answered_in(Kind::Http2, 0, Duration::from_secs(9));
        ledger.failed("GET: reset".to_owned());
        let tally = ledger.tally();
        assert_eq!(tally.quantile(1, &[Kind::Http2], 0.99), Duration::from_millis(100));
        assert_eq!(tally.quantile(1, &[Kind::Http2], 0.5), Duration::from_millis(51));
        assert_eq!(tally.quantile(1, &[Kind::Http2, Kind::Tcp], 1.0), Duration::from_secs(9));
        assert_eq!(tally.quantile(2, &Kind::ALL, 0.5), Duration::ZERO);
        assert_eq!((tally.answered(), tally.count(1, Kind::Http2)), (102, 100));
        assert_eq!(tally.failures, ["GET: reset"]);
    }
}
