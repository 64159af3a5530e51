//! What follows from the answers of an instance's health checks: thresholds in a row, as a machine
//! that reads no clock and asks nobody.
//!
//! ```text
//!             startup succeeds once,          `failures` in a row,
//!             then `successes` in a row       with `replace_after`
//!   Starting ----------------------> Ready ----------------------> Unready
//!      |                               ^  |                           |  |
//!      | startup's deadline            |  | `failures` in a row,      |  |
//!      |                               |  | without `replace_after`   |  |
//!      |         `successes` in a row  '--|---------------------------'  |
//!      v                                  v                              v
//!     Dead <----------------------------------- liveness: `failures` in a row
//! ```
//!
//! `Dead` is for good: the instance is replaced, whatever it answers later.

use crate::observed::Verdict;
use crate::quantity::{Millis, Timestamp};
use crate::spec::health::Health;

/// From one probe to the next until an instance is ready.
pub const UNTIL_READY: Millis = Millis(20);

/// Which of an instance's checks is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Whether it has started.
    Startup,
    /// Whether it can serve.
    Readiness,
    /// Whether it is of any use still.
    Liveness,
}

/// What the answers of one instance amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    verdict: Verdict,
    started: bool,
    /// When it was found, if it was there before the one who asks. It may have been ready long ago,
    /// so it gets the patience of what is ready before its failures count.
    found: Option<Timestamp>,
    readiness: Row,
    liveness: Row,
}

/// Answers of one kind in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Row {
    successes: u32,
    failures: u32,
}

impl Row {
    fn count<T, E>(&mut self, answer: &Result<T, E>) {
        *self = match answer {
            Ok(_) => Row { successes: self.successes.saturating_add(1), failures: 0 },
            Err(_) => Row { successes: 0, failures: self.failures.saturating_add(1) },
        };
    }
}

impl Course {
    /// Of an instance that has just been made.
    pub fn new() -> Self {
        Self {
            verdict: Verdict::Starting { last: None },
            started: false,
            found: None,
            readiness: Row::default(),
            liveness: Row::default(),
        }
    }

    /// Of an instance that was there before: `started` where that is known. One in rotation was
    /// proved before and counts as ready until it fails.
    pub fn found(started: bool, in_rotation: bool, now: Timestamp) -> Self {
        let verdict = if in_rotation {
            Verdict::Ready { since: now }
        } else {
            Verdict::Starting { last: None }
        };
        Self { verdict, started: started || in_rotation, found: Some(now), ..Self::new() }
    }

    /// What is to be said of the instance.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether it has started: liveness is asked from then on.
    pub fn has_started(&self) -> bool {
        self.started
    }

    /// The check that is to be asked besides liveness.
    pub fn asks(&self, health: &Health) -> Check {
        if !self.started && health.startup.is_some() { Check::Startup } else { Check::Readiness }
    }

    /// How long after an answer the next probe of a check follows; `None` when no more is asked.
    pub fn pause(&self, check: Check, health: &Health) -> Option<Millis> {
        match (&self.verdict, check) {
            (Verdict::Dead { .. }, _) => None,
            (_, Check::Liveness) => Some(health.liveness.as_ref()?.every),
            (Verdict::Starting { .. }, _) => Some(UNTIL_READY),
            (Verdict::Ready { .. } | Verdict::Unready { .. }, _) => Some(health.every),
        }
    }

    /// Counts anew, as under other thresholds.
    pub fn forget_rows(&mut self) {
        (self.readiness, self.liveness) = (Row::default(), Row::default());
    }

    /// Takes an answer in, of an instance that is `age` old; whether the verdict has turned.
    pub fn heard(
        &mut self,
        check: Check,
        answer: Result<(), String>,
        health: &Health,
        age: Millis,
        now: Timestamp,
    ) -> bool {
        if matches!(self.verdict, Verdict::Dead { .. }) {
            return false;
        }
        match check {
            Check::Startup => self.startup(answer, health, age, now),
            Check::Readiness => self.readiness(answer, health, now),
            Check::Liveness => self.liveness(answer, health, now),
        }
    }

    fn startup(
        &mut self,
        answer: Result<(), String>,
        health: &Health,
        age: Millis,
        now: Timestamp,
    ) -> bool {
        let Err(reason) = answer else {
            self.started = true;
            return false;
        };
        let deadline = health.startup.as_ref().and_then(|startup| startup.deadline);
        if let Some(deadline) = deadline.filter(|deadline| age >= *deadline) {
            let reason = format!("not started within {deadline}: {reason}");
            self.verdict = Verdict::Dead { since: now, reason };
            return true;
        }
        self.verdict = Verdict::Starting { last: Some(format!("not started: {reason}")) };
        false
    }

    fn readiness(&mut self, answer: Result<(), String>, health: &Health, now: Timestamp) -> bool {
        self.readiness.count(&answer);
        let Err(reason) = answer else {
            let enough = self.readiness.successes >= health.successes.max(1);
            if !enough || matches!(self.verdict, Verdict::Ready { .. }) {
                return false;
            }
            self.started = true;
            self.verdict = Verdict::Ready { since: now };
            return true;
        };
        let enough = self.readiness.failures >= health.failures.max(1);
        let patience = Millis(health.every.0.saturating_mul(health.failures.max(1).into()));
        match &mut self.verdict {
            Verdict::Ready { .. } if enough => {
                self.verdict = match health.replace_after {
                    Some(_) => Verdict::Unready { since: now, reason },
                    None => Verdict::Dead { since: now, reason },
                };
                return true;
            }
            Verdict::Starting { .. } if self.found.is_some_and(|at| now.since(at) < patience) => {}
            Verdict::Starting { .. } if self.found.is_some() && health.replace_after.is_some() => {
                self.verdict = Verdict::Unready { since: now, reason };
                return true;
            }
            Verdict::Starting { last } => *last = Some(reason),
            Verdict::Unready { reason: last, .. } => *last = reason,
            Verdict::Ready { .. } | Verdict::Dead { .. } => {}
        }
        false
    }

    fn liveness(&mut self, answer: Result<(), String>, health: &Health, now: Timestamp) -> bool {
        let Some(liveness) = health.liveness.as_ref().filter(|_| self.started) else {
            return false;
        };
        self.liveness.count(&answer);
        let Err(reason) = answer else { return false };
        if self.liveness.failures < liveness.failures.max(1) {
            return false;
        }
        self.verdict = Verdict::Dead { since: now, reason: format!("not alive: {reason}") };
        true
    }
}

impl Default for Course {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
