//! How often a client asks.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At fixed times. A late answer makes the next ones late, and their times count from when they
    /// were due: what a slow server keeps waiting is measured, not left out.
    Every(Duration),
    /// So long after each answer.
    Pause(Duration),
}

/// The beat of one client.
#[derive(Debug)]
pub(crate) struct Beat {
    pace: Pace,
    due: Instant,
}

impl Beat {
    /// Begins `share` of the way into the first interval, so that clients do not all ask at once.
    pub(crate) fn new(pace: Pace, share: f64) -> Self {
        let (Pace::Every(interval) | Pace::Pause(interval)) = pace;
        Self { pace, due: Instant::now() + interval.mul_f64(share) }
    }

    /// Waits for the next time to ask; the instant from which the answer's time counts.
    pub(crate) async fn next(&mut self) -> Instant {
        let now = Instant::now();
        let from = if self.due <= now { self.due } else { self.wait().await };
        if let Pace::Every(interval) = self.pace {
            self.due += interval;
            return from;
        }
        Instant::now()
    }

    async fn wait(&self) -> Instant {
        sleep_until(self.due).await;
        // Later than due by the clock's own resolution, which is not the server's fault.
        Instant::now()
    }

    /// An answer has come.
    pub(crate) fn answered(&mut self) {
        if let Pace::Pause(pause) = self.pace {
            self.due = Instant::now() + pause;
        }
    }

    /// Nothing was due while nobody could ask.
    pub(crate) fn restart(&mut self) {
        self.due = self.due.max(Instant::now());
    }
}
