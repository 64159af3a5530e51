//! Whether new instances answer worse than those before: a pure judgement of two counts.

use serde::{Deserialize, Serialize};

use crate::quantity::Millis;
use crate::spec::rollout::Analysis;

/// Buckets of the latency histogram: bucket `n` counts times below 2^n microseconds that are in
/// no lower bucket; the last one has no upper end.
pub const BUCKETS: usize = 32;

/// What was answered to HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Responses by class, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Requests that were taken and not answered.
    pub errors: u64,
    /// Times until the response's head, in [`BUCKETS`] buckets; empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency_us_log2: Vec<u64>,
    /// The sum of these times, microseconds.
    #[serde(default)]
    pub latency_us: u64,
}

impl Answers {
    /// Requests in all.
    pub fn total(&self) -> u64 {
        self.responses.iter().fold(self.errors, |sum, n| sum.saturating_add(*n))
    }

    /// Requests that failed: status 5xx, or no answer.
    pub fn failed(&self) -> u64 {
        self.responses[4].saturating_add(self.errors)
    }

    /// What has come since `before`, a reading of the same counters. Where they have begun
    /// anew, all of it.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.total() < before.total() {
            return self.clone();
        }
        let less = |now: u64, then: Option<&u64>| now.saturating_sub(then.copied().unwrap_or(0));
        Self {
            responses: std::array::from_fn(|n| less(self.responses[n], before.responses.get(n))),
            errors: less(self.errors, Some(&before.errors)),
            latency_us_log2: (self.latency_us_log2.iter().enumerate())
                .map(|(n, now)| less(*now, before.latency_us_log2.get(n)))
                .collect(),
            latency_us: less(self.latency_us, Some(&before.latency_us)),
        }
    }

    /// Takes in those of another.
    pub fn add(&mut self, other: &Self) {
        for (sum, n) in self.responses.iter_mut().zip(other.responses) {
            *sum = sum.saturating_add(n);
        }
        self.errors = self.errors.saturating_add(other.errors);
        self.latency_us = self.latency_us.saturating_add(other.latency_us);
        if self.latency_us_log2.len() < other.latency_us_log2.len() {
            self.latency_us_log2.resize(other.latency_us_log2.len(), 0);
        }
        for (sum, n) in self.latency_us_log2.iter_mut().zip(&other.latency_us_log2) {
            *sum = sum.saturating_add(*n);
        }
    }

    /// The bucket of the answer that `quantile` of a thousand are not slower than.
    fn bucket(&self, quantile: u32) -> Option<u32> {
        let total: u64 = self.latency_us_log2.iter().sum();
        let rank = (total.saturating_mul(u64::from(quantile.min(1000)))).div_ceil(1000).max(1);
        let mut seen = 0_u64;
        for (bucket, count) in self.latency_us_log2.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if total > 0 && seen >= rank {
                return u32::try_from(bucket).ok();
            }
        }
        None
    }

    /// Between which times, in microseconds, the answer lies that `quantile` of a thousand are
    /// not slower than; `None` where nothing was answered.
    pub fn quantile(&self, quantile: u32) -> Option<(u64, u64)> {
        let bucket = self.bucket(quantile)?;
        let upper = 1_u64.checked_shl(bucket).unwrap_or(u64::MAX);
        Some((if bucket == 0 { 0 } else { upper / 2 }, upper))
    }
}

/// The answers of a server's instances while a change is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Of those that are as the generation wants them.
    pub new: Answers,
    /// Of those before.
    pub old: Answers,
}

/// How sure it must be that more requests fail than allowed, in standard deviations: 99 of a
/// hundred, and it is asked at each look.
const SURE: f64 = 2.326;

/// Why a change is to be called off by what was answered, in words; `None` where nothing speaks
/// against it.
///
/// Errors are judged by the lower end of the Wilson score interval (Wilson, "Probable
/// Inference, the Law of Succession, and Statistical Inference", 1927), so that a single failure
/// among few requests condemns nobody. Latency is judged by the nearer ends of the buckets.
pub fn judge(analysis: &Analysis, evidence: &Evidence) -> Option<String> {
    errors(analysis, evidence).or_else(|| latency(analysis, evidence))
}

fn errors(analysis: &Analysis, Evidence { new, old }: &Evidence) -> Option<String> {
    if analysis.errors >= 1000 || new.total() < u64::from(analysis.requests.max(1)) {
        return None;
    }
    let share = |answers: &Answers| ratio(answers.failed(), answers.total());
    let allowed = share(old) + f64::from(analysis.errors) / 1000.0;
    (wilson_lower(new.failed(), new.total()) > allowed).then(|| {
        format!(
            "{:.1} % of {} requests failed, {:.1} % of {} before",
            share(new) * 100.0,
            new.total(),
            share(old) * 100.0,
            old.total()
        )
    })
}

fn latency(analysis: &Analysis, Evidence { new, old }: &Evidence) -> Option<String> {
    let enough = u64::from(analysis.requests.max(1));
    if analysis.latency == 0 || new.total() < enough || old.total() < enough {
        return None;
    }
    let ((now, _), (_, then)) =
        (new.quantile(analysis.quantile)?, old.quantile(analysis.quantile)?);
    let times = u128::from(then) * u128::from(analysis.latency) / 1000;
    let beyond = u128::from(then) + u128::from(analysis.beyond.0) * 1000;
    let too_slow = u128::from(now) > times && u128::from(now) > beyond;
    too_slow.then(|| {
        let (now, then) = (Millis(now / 1000), Millis(then.div_ceil(1000)));
        format!(
            "{} % of the answers took more than {now}, below {then} before",
            f64::from(1000 - analysis.quantile.min(1000)) / 10.0
        )
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests: exact up to 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests: exact up to 2^53")]
fn wilson_lower(part: u64, whole: u64) -> f64 {
    let (n, p, square) = (whole as f64, ratio(part, whole), SURE * SURE);
    let centre = p + square / (2.0 * n);
    let spread = SURE * (p * (1.0 - p) / n + square / (4.0 * n * n)).sqrt();
    (centre - spread) / (1.0 + square / n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// So many good and failed answers, all of which took `micros`.
    fn answers(good: u64, failed: u64, micros: u64) -> Answers {
        let mut latency_us_log2 = vec![0; BUCKETS];
        latency_us_log2[(u64::BITS - micros.leading_zeros()) as usize] = good + failed;
        Answers { responses: [0, good, 0, 0, failed], latency_us_log2, ..Answers::default() }
    }

    fn judged(new: Answers, old: Answers) -> Option<String> {
        judge(&Analysis::default(), &Evidence { new, old })
    }

    #[test]
    fn five_of_a_hundred_failures_are_found_and_one_of_twenty_is_not() {
        let before = answers(1000, 0, 800);
        assert_eq!(judged(answers(19, 1, 800), before.clone()), None);
        assert!(judged(answers(95, 5, 800), before.clone()).is_some());
        assert!(judged(answers(0, 20, 800), before.clone()).is_some());
        assert_eq!(judged(answers(0, 19, 800), before), None, "too few to say");
        // Before it was no better.
        assert_eq!(judged(answers(95, 5, 800), answers(950, 50, 800)), None);
    }

    #[test]
    fn answers_that_take_far_longer_are_found() {
        let slow = judged(answers(50, 0, 400_000), answers(500, 0, 2_000));
        assert_eq!(
            slow.as_deref(),
            Some("50 % of the answers took more than 262ms, below 3ms before")
        );
        // Three times as long, and nobody would notice.
        assert_eq!(judged(answers(50, 0, 8_000), answers(500, 0, 900)), None);
        // Nothing to compare with.
        assert_eq!(judged(answers(50, 0, 400_000), Answers::default()), None);
    }

    #[test]
    fn counters_that_begin_anew_count_whole() {
        let (early, late) = (answers(10, 1, 10), answers(25, 1, 10));
        assert_eq!(late.since(&early).total(), 15);
        assert_eq!(early.since(&late), early);
    }

    proptest! {
        #[test]
        fn the_same_answers_are_never_worse(good in 0_u64..5000, bad in 0_u64..5000, us in 1_u64..1 << 25) {
            prop_assert_eq!(judged(answers(good, bad, us), answers(good, bad, us)), None);
        }

        #[test]
        fn more_failures_never_excuse(good in 0_u64..500, bad in 0_u64..500, more in 0_u64..500) {
            let before = answers(1000, 3, 10);
            if judged(answers(good, bad, 10), before.clone()).is_some() {
                prop_assert!(judged(answers(good, bad + more, 10), before).is_some());
            }
        }
    }
}
