//! What the guard says of itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use kiln_engine::guard::{GuardReport, Listening, Source};

/// Over how long the share of a processor is told, and how often it is noted for that.
const SPAN: usize = 12;
const NOTED: Duration = Duration::from_secs(5);

/// What happened so far.
#[derive(Default)]
pub(super) struct Report {
    /// What is not heard, and why.
    pub(super) deaf: BTreeMap<Source, String>,
    heard: BTreeMap<Source, u64>,
    found: BTreeMap<Source, u64>,
    /// Programs that were executed too fast to be looked at one by one.
    pub(super) skipped: u64,
    round: Option<Round>,
    worked: Duration,
    noted: VecDeque<(Instant, Duration)>,
}

/// A round of the sweep.
#[derive(Clone, Copy)]
struct Round {
    ended: Instant,
    took: Duration,
    rounds: u64,
}

impl Report {
    pub(super) fn heard(&mut self, source: Source, events: usize) {
        *self.heard.entry(source).or_default() += u64::try_from(events).unwrap_or(0);
    }

    pub(super) fn found(&mut self, source: Source) {
        *self.found.entry(source).or_default() += 1;
    }

    pub(super) fn round(&mut self, took: Duration) {
        let rounds = self.round.map_or(0, |round| round.rounds) + 1;
        self.round = Some(Round { ended: Instant::now(), took, rounds });
    }

    /// Notes the processor's time that was used until now.
    pub(super) fn worked(&mut self, worked: Duration, now: Instant) {
        self.worked = worked;
        if self.noted.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= NOTED) {
            self.noted.push_back((now, worked));
            if self.noted.len() > SPAN {
                self.noted.pop_front();
            }
        }
    }

    /// The share of one processor, of late, in percent.
    fn share(&self) -> f64 {
        let Some((since, then)) = self.noted.front() else { return 0.0 };
        let passed = since.elapsed().as_secs_f64();
        let worked = self.worked.saturating_sub(*then).as_secs_f64();
        if passed < 0.5 { 0.0 } else { (worked / passed * 100_000.0).round() / 1000.0 }
    }

    pub(super) fn document(&self, instances: usize, networks: usize) -> GuardReport {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let sources = Source::ALL.iter().map(|source| Listening {
            source: *source,
            active: !self.deaf.contains_key(source),
            because: self.deaf.get(source).cloned(),
            events: self.heard.get(source).copied().unwrap_or(0),
            found: self.found.get(source).copied().unwrap_or(0),
        });
        GuardReport {
            instances,
            networks,
            sources: sources.collect(),
            skipped: self.skipped,
            rounds: self.round.map_or(0, |round| round.rounds),
            round_ms: self.round.map(|round| millis(round.took)),
            last_round_ms_ago: self.round.map(|round| millis(round.ended.elapsed())),
            cpu_ms: millis(self.worked),
            cpu_percent: self.share(),
        }
    }
}
