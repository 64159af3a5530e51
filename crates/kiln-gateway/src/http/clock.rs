//! When a client's connection was last of use.
//!
//! One timer per connection looks at two marks, instead of one timer per request.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::now_ms;
use crate::http::limits::{self, Bounds};

/// The marks of one connection; times by [`now_ms`].
#[derive(Debug)]
pub(crate) struct Clock {
    active: AtomicU32,
    idle_since: AtomicU64,
    /// When the head that is being received began; 0 when none is.
    head_since: AtomicU64,
    /// Whether the client may still be sending what is not taken any more.
    refused: AtomicBool,
    bounds: Bounds,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Look again after this time.
    Later(Duration),
    /// The head of a request takes too long.
    Stalled,
    /// Nothing has been asked for too long.
    Idle,
}

impl Clock {
    /// With `head_begun`, the first bytes of a request have arrived already.
    pub(crate) fn new(head_begun: bool, bounds: Bounds) -> Self {
        let now = now_ms();
        Self {
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            head_since: AtomicU64::new(if head_begun { now } else { 0 }),
            refused: AtomicBool::new(false),
            bounds,
        }
    }

    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    pub(crate) fn end(&self) {
        if self.active.load(Relaxed) == 1 {
            self.idle_since.store(now_ms(), Relaxed);
        }
        self.active.fetch_sub(1, Relaxed);
    }

    /// Something has come from the client: of a head, unless a request is being answered.
    pub(crate) fn bytes_read(&self) {
        if self.active.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(now_ms(), Relaxed);
        }
    }

    /// The client's request was refused before its end.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    /// Whether it was.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// What is to be done now. `short`: the process is short of descriptors.
    pub(crate) fn due(&self, short: bool) -> Due {
        let limit = |usual: Duration| if short { usual.min(limits::SHORT) } else { usual };
        let (head_limit, idle_limit) = (limit(self.bounds.head), limit(self.bounds.idle));
        if self.active.load(Relaxed) > 0 {
            return Due::Later(head_limit);
        }
        let since = |mark: u64| Duration::from_millis(now_ms().saturating_sub(mark));
        let head = self.head_since.load(Relaxed);
        if head != 0 {
            return match head_limit.checked_sub(since(head)) {
                Some(left) if !left.is_zero() => Due::Later(left.min(head_limit)),
                _ => Due::Stalled,
            };
        }
        match idle_limit.checked_sub(since(self.idle_since.load(Relaxed))) {
            // A head may begin at any time, and its time is the shorter one.
            Some(left) if !left.is_zero() => Due::Later(left.min(head_limit)),
            _ => Due::Idle,
        }
    }

    /// How long nothing has been asked; zero while something is.
    pub(crate) fn idle_for(&self) -> Duration {
        if self.active.load(Relaxed) > 0 || self.head_since.load(Relaxed) != 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(now_ms().saturating_sub(self.idle_since.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_stops_the_clock_of_its_head() {
        let clock = Clock::new(true, Bounds::default());
        assert!(matches!(clock.due(false), Due::Later(left) if left <= Bounds::default().head));
        clock.head_since.store(0, Relaxed);
        clock.begin();
        clock.bytes_read();
        assert_eq!(clock.head_since.load(Relaxed), 0);
        clock.end();
        clock.bytes_read();
        assert_ne!(clock.head_since.load(Relaxed), 0);
    }
}
