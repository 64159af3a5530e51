//! How many instances each target wants, by the samples of the last seconds.

use std::collections::VecDeque;

use super::Sample;
use crate::quantity::{Amount, Bytes, Millis};
use crate::spec::scale::Scale;

/// Spans over which demand is measured. What the short ones show counts as far as it is beyond
/// chance; the long one, which is at most `down_after`, counts as it is.
const SHORT: [Millis; 2] = [Millis(500), Millis::seconds(2)];
const LONG: Millis = Millis::seconds(10);

/// How many standard deviations of a Poisson process are taken for chance.
const CHANCE: u64 = 3;

/// Answers from which a quantile over the shorter span is taken.
const ENOUGH_ANSWERS: u64 = 50;

/// How many instances a target wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// To grow to; not above the present count where that will do.
    pub(super) up: u32,
    /// To shrink to, with the tolerance on top.
    pub(super) down: u32,
    /// What was measured, and the target.
    pub(super) because: String,
}

/// The span over which demand counts as it is.
pub(super) fn long(scale: &Scale) -> Millis {
    LONG.min(scale.down_after.max(Millis::seconds(1)))
}

/// What every target wants, where `current` instances are wanted now.
pub(super) fn needs(scale: &Scale, samples: &VecDeque<Sample>, current: u32) -> Vec<Need> {
    let Some(last) = samples.back() else { return Vec::new() };
    let view = View { samples, last, long: long(scale), current, tolerance: scale.tolerance };
    let target = &scale.target;
    let mut needs = Vec::new();
    if let Some(each) = target.requests_per_second {
        let rate = view.arrivals();
        let because = format!("{} requests/s over {} each", whole(rate), grouped_amount(each));
        needs.push(view.linear(rate, each.0, because));
    }
    if let Some(each) = target.concurrency {
        let busy = view.concurrency();
        let because =
            format!("{} requests at a time over {} each", tenths(busy), grouped_amount(each));
        needs.push(view.linear(busy, each.0, because));
    }
    if let Some(cpu) = target.cpu {
        let used = view.processors();
        let (each, used_text) = (Amount(u64::from(cpu.0)), tenths(used));
        let because = format!("{used_text} processors over {each} each");
        needs.push(view.linear(used, each.0, because));
    }
    if let Some(each) = target.memory {
        let because = format!("{} of memory over {each} each", mebibytes(last.memory));
        needs.push(view.linear(last.memory, each.0, because));
    }
    if let Some(limit) = target.latency {
        needs.push(view.latency(limit));
    }
    if let Some(target) = &target.number {
        let program = target.command.first().map_or("", String::as_str);
        let each = target.value;
        needs.push(match last.number {
            Some(number) => {
                let because =
                    format!("{} of {program} over {} each", tenths(number), grouped_amount(each));
                view.linear(number, each.0, because)
            }
            None => Need { up: 0, down: current, because: format!("no number of {program}") },
        });
    }
    needs
}

/// Whether the instances work without being asked: their processor time is not that of rest.
pub(super) fn is_busy(scale: &Scale, samples: &VecDeque<Sample>) -> bool {
    let (Some(last), Some(cpu)) = (samples.back(), scale.target.cpu) else { return false };
    let view = View { samples, last, long: LONG, current: 0, tolerance: scale.tolerance };
    view.processors() * 10 > u64::from(cpu.0)
}

/// The samples, and what they are judged by.
struct View<'a> {
    samples: &'a VecDeque<Sample>,
    last: &'a Sample,
    long: Millis,
    current: u32,
    tolerance: u32,
}

impl View<'_> {
    /// What one instance takes `each` of.
    fn linear(&self, total: u64, each: u64, because: String) -> Need {
        let (total, each) = (u128::from(total), u128::from(each.max(1)));
        let (current, slack) = (u128::from(self.current), u128::from(100 + self.tolerance));
        let enough = total.div_ceil(each);
        let beyond = total * 100 > current * each * slack;
        let up = if beyond { enough } else { enough.min(current) };
        let down = (total * slack).div_ceil(100 * each);
        Need { up: count(up), down: count(down), because }
    }

    /// The first and the last sample of a span; none where less than half of it was seen.
    fn span(&self, span: Millis) -> Option<(&Sample, &Sample)> {
        let age = |sample: &Sample| self.last.at.since(sample.at);
        let first = self.samples.iter().rev().find(|sample| age(sample) >= span);
        let first = first.or(self.samples.front())?;
        let seen = age(first);
        (seen.0 > 0 && seen.0 * 2 >= span.0).then_some((first, self.last))
    }

    /// Requests a second, in thousandths.
    fn arrivals(&self) -> u64 {
        let rate = |span: Millis, is_short: bool| {
            let (first, last) = self.span(span)?;
            let count = last.arrived - first.arrived;
            let chance = if is_short { CHANCE * (count * 1_000_000).isqrt() } else { 0 };
            Some((count * 1000).saturating_sub(chance) * 1000 / last.at.since(first.at).0)
        };
        let short = SHORT.into_iter().map(|span| rate(span, true));
        short.chain([rate(self.long, false)]).flatten().max().unwrap_or(0)
    }

    /// Requests at a time, in thousandths: those that are answered, those that wait, and those
    /// that would be answered had they not been refused.
    fn concurrency(&self) -> u64 {
        let mean = |span: Millis| {
            let within = self.samples.iter().filter(|s| self.last.at.since(s.at) <= span);
            let (sum, count) = within.fold((0_u64, 0_u64), |(sum, count), s| {
                let (answered, refused) = self.outcomes();
                let missed = u64::from(s.in_flight) * 1000 * refused / answered.max(1);
                let there = (u64::from(s.in_flight) + u64::from(s.waiting)) * 1000;
                (sum + there + missed, count + 1)
            });
            sum / count.max(1)
        };
        mean(Millis::seconds(1)).max(mean(self.long))
    }

    /// Requests of the last seconds that instances took, and that they did not.
    fn outcomes(&self) -> (u64, u64) {
        let Some((first, last)) = self.span(SHORT[1]) else { return (1, 0) };
        let (arrived, refused) = (last.arrived - first.arrived, last.refused - first.refused);
        (arrived.saturating_sub(refused), refused)
    }

    /// Processor time in use, in thousandths of a processor, and what those would have used that
    /// wait or were refused.
    fn processors(&self) -> u64 {
        let rate = |span: Millis| {
            let (first, last) = self.span(span)?;
            Some((last.cpu_us - first.cpu_us) / last.at.since(first.at).0)
        };
        let used = rate(SHORT[1]).max(rate(self.long)).unwrap_or(0);
        let (answered, refused) = self.outcomes();
        let refused = used * refused / answered.max(1);
        let (busy, waiting) = (u64::from(self.last.in_flight), u64::from(self.last.waiting));
        let waiting = (used * waiting).checked_div(busy);
        used + refused + waiting.unwrap_or(0)
    }

    /// How a response's time compares with `limit`. That says in which direction to go, and not
    /// how far: at most to twice as many, one in ten fewer, and on only when all serve.
    fn latency(&self, limit: Millis) -> Need {
        let stay = |because: String| Need { up: 0, down: self.current, because };
        let recent =
            || self.samples.iter().rev().take_while(|s| self.last.at.since(s.at) <= SHORT[1]);
        if recent().any(|s| s.ready < self.current) || self.span(SHORT[1]).is_none() {
            return stay("not all instances serve yet".to_owned());
        }
        let Some(quantile) = self.quantile(limit) else {
            return Need { up: 0, down: 0, because: "nothing was answered".to_owned() };
        };
        let because = format!("95 of 100 answers within {quantile}, of {limit} wanted");
        let (took, limit) = (u128::from(quantile.0), u128::from(limit.0.max(1)));
        let current = u128::from(self.current);
        if took * 100 > limit * u128::from(100 + self.tolerance) {
            let up = (current * took).div_ceil(limit).min(current * 2);
            return Need { up: count(up), down: self.current, because };
        }
        if took * 2 < limit {
            let fewer = self.current.saturating_sub((self.current / 10).max(1));
            return Need { up: 0, down: fewer, because };
        }
        stay(because)
    }

    /// The time that 95 of 100 answers stayed below, from the shorter span that has enough of
    /// them. Where requests wait all the time, at least twice the limit.
    fn quantile(&self, limit: Millis) -> Option<Millis> {
        let counts = |span: Millis| {
            let (first, last) = self.span(span)?;
            let before = first.latency.iter().copied().chain(std::iter::repeat(0));
            Some(last.latency.iter().zip(before).map(|(n, b)| n - b).collect::<Vec<u64>>())
        };
        let short = counts(SHORT[1]).filter(|c| c.iter().sum::<u64>() >= ENOUGH_ANSWERS);
        let found = short.or_else(|| counts(self.long)).and_then(|counts| upper(&counts));
        let mut lately = self.samples.iter().rev().take(4);
        let queue = self.samples.len() >= 4 && lately.all(|s| s.waiting > 0);
        let queued = queue.then(|| Millis(limit.0.saturating_mul(2)));
        found.max(queued)
    }
}

/// The 95th percentile of a histogram by powers of two of a microsecond, within its entry by
/// proportion.
fn upper(counts: &[u64]) -> Option<Millis> {
    let total: u64 = counts.iter().sum();
    let wanted = (total * 95).div_ceil(100);
    let mut below = 0;
    for (index, count) in counts.iter().enumerate() {
        if *count > 0 && below + count >= wanted {
            let top = 1_u64 << index.min(50);
            let bottom = if index == 0 { 0 } else { top / 2 };
            return Some(Millis((bottom + (top - bottom) * (wanted - below) / count) / 1000));
        }
        below += count;
    }
    None
}

fn count(number: u128) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Thousandths as a whole number with its digits in groups: `2,310`.
fn whole(thousandths: u64) -> String {
    grouped((thousandths + 500) / 1000)
}

/// Thousandths with at most one digit behind the point.
fn tenths(thousandths: u64) -> String {
    let tenths = (thousandths + 50) / 100;
    match tenths % 10 {
        0 => grouped(tenths / 10),
        tenth => format!("{}.{tenth}", grouped(tenths / 10)),
    }
}

fn grouped_amount(amount: Amount) -> String {
    if amount.0.is_multiple_of(1000) { grouped(amount.0 / 1000) } else { amount.to_string() }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: u64) -> Bytes {
    if bytes < 1 << 20 { Bytes(bytes) } else { Bytes::mib(bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(whole(2_309_600), "2,310");
        assert_eq!((tenths(1_000), tenths(41_260)), ("1".to_owned(), "41.3".to_owned()));
        assert_eq!((grouped(999), grouped(1_234_567)), ("999".to_owned(), "1,234,567".to_owned()));
    }

    #[test]
    fn a_quantile_lies_within_its_entry() {
        assert_eq!(upper(&[]), None);
        let mut counts = vec![0; 32];
        (counts[14], counts[20]) = (90, 10);
        let found = upper(&counts).unwrap();
        assert!((Millis(524)..=Millis(1_049)).contains(&found), "{found}");
        assert_eq!(found, Millis(786), "in the middle of it");
    }
}
