//! How much the guard may work: shares of one processor, over time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Work that may take a share of one processor.
#[derive(Debug)]
pub(super) struct Pace {
    /// Thousandths of one processor.
    share: u32,
    /// What may be saved for later, and owed at most.
    bounds: (i64, i64),
    /// Nanoseconds that may be worked now; below zero, what was worked too much.
    balance: i64,
    last: Instant,
}

impl Pace {
    /// Work of at most `share` thousandths of one processor, which may save up `burst`.
    pub(super) fn new(share: u32, burst: Duration, now: Instant) -> Self {
        let burst = i64::try_from(burst.as_nanos()).unwrap_or(i64::MAX);
        // However long it was hindered, it works again before long.
        Self { share, bounds: (burst.saturating_mul(-100), burst), balance: burst, last: now }
    }

    /// Whether there is time for work at `now`.
    pub(super) fn may(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.last).as_nanos();
        let earned = i64::try_from(passed * u128::from(self.share) / 1000).unwrap_or(i64::MAX);
        self.last = now;
        self.balance = self.balance.saturating_add(earned).min(self.bounds.1);
        self.balance > 0
    }

    /// Takes off what was worked.
    pub(super) fn spend(&mut self, worked: Duration) {
        let worked = i64::try_from(worked.as_nanos()).unwrap_or(i64::MAX);
        self.balance = self.balance.saturating_sub(worked).max(self.bounds.0);
    }
}

/// The processor's time that the calling thread has used.
pub(super) fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Does some work; how long it took the processor.
pub(super) fn timed(work: impl FnOnce()) -> Duration {
    let before = worked();
    work();
    worked().saturating_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_share_and_no_more() {
        let start = Instant::now();
        let mut pace = Pace::new(4, Duration::from_millis(1), start);
        let mut worked = Duration::ZERO;
        for tick in 0..10_000 {
            let now = start + Duration::from_millis(tick);
            if pace.may(now) {
                worked += Duration::from_micros(150);
                pace.spend(Duration::from_micros(150));
            }
        }
        // 4 of 1000 of ten seconds.
        assert!((39..43).contains(&worked.as_millis()), "{worked:?}");
    }

    #[test]
    fn a_debt_is_worked_off() {
        let start = Instant::now();
        let mut pace = Pace::new(10, Duration::from_millis(1), start);
        pace.spend(Duration::from_millis(11));
        assert!(!pace.may(start + Duration::from_millis(900)));
        assert!(pace.may(start + Duration::from_millis(1100)));
        pace.spend(Duration::from_secs(3600));
        assert!(pace.may(start + Duration::from_secs(15)), "but not for ever");
    }
}
