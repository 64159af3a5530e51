//! How many instances a server should have: a decision on what was measured.
//!
//! Each target says how many instances would do: what is asked of the server as a whole, divided
//! by what one instance is to have. That does not depend on how many there are, so the count
//! does not swing around its target. The largest count of all targets wins.
//!
//! *Up at once.* The count grows as soon as demand is beyond the present count's targets by the
//! tolerance, to what demand is then. Demand is the largest of three estimates: over half a
//! second and two seconds, less three standard deviations of what chance does to so many
//! arrivals, and over the last ten seconds as it is. What waits and what was refused counts.
//!
//! *Down late.* The count falls when a smaller one would have been enough, with the tolerance on
//! top, all the time for `down_after` and the span of the longest estimate before it, to the
//! largest that was enough within `down_after`; and not before that has passed since it last
//! changed. So in any span of that length a count falls at most once, and turns at most twice;
//! a demand that comes back within it is met by what is there.
//!
//! [`decide`] is a function of its arguments; what it remembers is the [`History`].

mod meter;
mod need;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use meter::{Arrivals, Demand, Meter, Sample, Usage};

use need::Need;

use crate::quantity::{Millis, Timestamp};
use crate::spec::scale::Scale;

/// How long samples are kept.
const KEPT: Millis = Millis::seconds(11);

/// Samples that follow each other faster take each other's place.
const APART: Millis = Millis(100);

/// Without samples for so long, it is not known what happened meanwhile.
const GAP: Millis = Millis::seconds(5);

/// Into how many parts the time is divided in which a smaller count must have been enough.
const PARTS: u64 = 60;

/// How a server stands when it is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many instances are wanted.
    pub wanted: u32,
    /// Since when.
    pub since: Timestamp,
    /// Whether the count may fall; during a rollout it may not.
    pub may_fall: bool,
}

/// How many instances a server should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The count, within the bounds.
    pub wanted: u32,
    /// What it rests on, in a few words.
    pub because: String,
}

/// What is remembered of one server from decision to decision.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// The counts that were enough, by part of the time in which they were: its beginning, and
    /// the largest.
    enough: VecDeque<(Timestamp, u32)>,
    /// Since when there are samples without a gap.
    since: Timestamp,
}

/// Decides how many instances a server should have, by a new sample and those before it.
pub fn decide(
    scale: &Scale,
    history: &mut History,
    sample: Sample,
    standing: Standing,
) -> Decision {
    let now = sample.at;
    history.note(sample);
    let needs = need::needs(scale, &history.samples, standing.wanted);
    let active = history.is_active() || need::is_busy(scale, &history.samples);
    let fewest = needs.iter().map(|need| need.down).max().unwrap_or(standing.wanted);
    let fewest = fewest_at_rest(scale, &needs, fewest, active);
    history.note_enough(now, scale, fewest);
    let up = needs.iter().max_by_key(|need| need.up);
    let growth = up.map_or(0, |need| need.up).min(scale.max);
    if standing.wanted == 0 && active && growth <= 1 {
        return Decision { wanted: 1, because: "it is asked for".to_owned() };
    }
    if growth > standing.wanted {
        let because = up.map(|need| need.because.clone()).unwrap_or_default();
        return Decision { wanted: scale.clamp(growth), because };
    }
    let whole = scale.down_after.0 + need::long(scale).0;
    let rested = now.since(standing.since) >= scale.down_after
        && now.since(history.since).0 >= whole
        && scale.clamp(history.most_enough(now, Millis(whole))) < standing.wanted;
    let low = scale.clamp(history.most_enough(now, scale.down_after));
    if standing.may_fall && rested && low < standing.wanted {
        return Decision { wanted: low, because: reason(&needs, low) };
    }
    let wanted = scale.clamp(standing.wanted);
    Decision { wanted, because: reason(&needs, wanted) }
}

/// Nobody is needed where nobody asks, whatever the instances use at rest; one at least where
/// somebody does.
fn fewest_at_rest(scale: &Scale, needs: &[Need], fewest: u32, active: bool) -> u32 {
    let number_wants = scale.target.number.is_some() && needs.last().is_some_and(|n| n.down > 0);
    match active {
        true => fewest.max(1),
        false if scale.sleeps() && !number_wants => 0,
        false => fewest,
    }
}

/// What the target says that wants the most.
fn reason(needs: &[Need], wanted: u32) -> String {
    if wanted == 0 {
        return "nobody asks for it".to_owned();
    }
    let most = needs.iter().max_by_key(|need| need.down);
    most.map(|need| need.because.clone()).unwrap_or_default()
}

impl History {
    fn note(&mut self, sample: Sample) {
        let now = sample.at;
        match self.samples.back() {
            Some(last) if now.since(last.at) <= GAP && now >= last.at => {}
            _ => *self = Self { since: now, ..Self::default() },
        }
        let last_but_one = self.samples.iter().rev().nth(1);
        if last_but_one.is_some_and(|before| now.since(before.at) < APART) {
            self.samples.pop_back();
        }
        self.samples.push_back(sample);
        while self.samples.front().is_some_and(|first| now.since(first.at) > KEPT) {
            self.samples.pop_front();
        }
    }

    /// Whether somebody asks for the server.
    fn is_active(&self) -> bool {
        let mut latest = self.samples.iter().rev();
        let Some(last) = latest.next() else { return false };
        let came = latest.next().is_some_and(|before| last.arrived > before.arrived);
        came || last.waiting > 0 || last.in_flight > 0
    }

    fn note_enough(&mut self, now: Timestamp, scale: &Scale, count: u32) {
        let part = Millis(scale.down_after.0 / PARTS);
        let span = Millis(scale.down_after.0 + need::long(scale).0 + part.0);
        match self.enough.back_mut() {
            Some((begun, most)) if now.since(*begun) < part => *most = count.max(*most),
            _ => self.enough.push_back((now, count)),
        }
        // A part that begins before the span may reach into it.
        while self.enough.len() > 1 && now.since(self.enough[1].0) >= span {
            self.enough.pop_front();
        }
    }

    /// The largest count that was enough at any time within the span.
    fn most_enough(&self, now: Timestamp, span: Millis) -> u32 {
        let within = |begun: &Timestamp| now.since(*begun).0 <= span.0 + span.0 / PARTS;
        let parts = self.enough.iter().filter(|(begun, _)| within(begun));
        parts.map(|(_, most)| *most).max().unwrap_or(0)
    }
}
