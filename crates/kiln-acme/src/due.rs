//! When a certificate is to be obtained.

use kiln_gateway::certificate::Validity;
use kiln_model::certificate::Acme;
use kiln_model::digest::Digest;

use crate::store::{Failure, Record};

/// Seconds since 1970-01-01, and spans of seconds.
pub(crate) type Seconds = i64;

/// The pause after the first failure; it doubles with each further one. So there are five tries
/// in the first hour, which is what the strictest of the large authorities allow for a name.
const FIRST_PAUSE: Seconds = 120;

/// The longest pause.
const LONGEST_PAUSE: Seconds = 6 * 3600;

/// Renewed when a third of its time is left, and up to a thirtieth of it earlier: so that names
/// which came together do not stay together.
const LEFT: Seconds = 3;
const SPREAD: Seconds = 30;

/// What is to be done about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A certificate is to be obtained.
    Now,
    /// Nothing before this time.
    At(Seconds),
}

/// Decides. `held` is the certificate that is there.
pub(crate) fn due(
    now: Seconds,
    acme: &Acme,
    name: &str,
    held: Option<Validity>,
    record: &Record,
) -> Due {
    let chance = chance(name, held);
    let wanted_at = match held {
        Some(held) if record.directory.as_ref() == Some(&acme.directory) => {
            renewal(held, chance).max(held.not_before)
        }
        // There is none, or it comes from another authority.
        _ => now,
    };
    let allowed_at = match &record.failure {
        Some(failure) if failure.asked.is_same(acme) => failure.at + pause(failure, held, chance),
        _ => now,
    };
    match wanted_at.max(allowed_at) {
        at if at <= now => Due::Now,
        at => Due::At(at),
    }
}

/// When a certificate is renewed.
fn renewal(held: Validity, chance: u16) -> Seconds {
    let lifetime = lifetime(held);
    held.not_after - lifetime / LEFT - lifetime / SPREAD * Seconds::from(chance) / CHANCES
}

/// How long nothing is tried after a failure. Short-lived certificates leave less time.
fn pause(failure: &Failure, held: Option<Validity>, chance: u16) -> Seconds {
    let doubled = FIRST_PAUSE << (failure.count.clamp(1, 16) - 1);
    let bound = held.map_or(LONGEST_PAUSE, |held| LONGEST_PAUSE.min(lifetime(held) / 12));
    let pause = doubled.min(bound).max(1);
    pause + pause / 10 * Seconds::from(chance) / CHANCES
}

fn lifetime(held: Validity) -> Seconds {
    (held.not_after - held.not_before).max(0)
}

/// One more than the largest chance.
const CHANCES: Seconds = 1 << 16;

/// A number that is as good as random, and the same whenever it is asked for: nothing has to be
/// remembered for it.
fn chance(name: &str, held: Option<Validity>) -> u16 {
    let text = format!("{name} {}", held.map_or(0, |held| held.not_after));
    let digest = Digest::of(text.as_bytes());
    u16::from_be_bytes([digest.as_bytes()[0], digest.as_bytes()[1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Asked;

    const DAY: Seconds = 86_400;

    fn acme() -> Acme {
        Acme {
            directory: "https://ca.example/directory".to_owned(),
            names: Vec::new(),
            email: None,
            roots: None,
        }
    }

    fn record(failures: u32) -> Record {
        let failure = Failure {
            count: failures,
            at: 0,
            error: "refused".to_owned(),
            asked: Asked::of(&acme()),
        };
        Record { directory: Some(acme().directory), failure: (failures > 0).then_some(failure) }
    }

    fn held(days: Seconds) -> Validity {
        Validity { not_before: 0, not_after: days * DAY }
    }

    #[test]
    fn a_third_before_its_end_and_not_all_at_once() {
        let mut times = std::collections::BTreeSet::new();
        for n in 0..100 {
            let name = format!("n{n}.example");
            let Due::At(at) = due(0, &acme(), &name, Some(held(90)), &record(0)) else {
                panic!("{name} is due at once");
            };
            assert!((57 * DAY..=60 * DAY).contains(&at), "{name}: {at}");
            assert_eq!(due(at, &acme(), &name, Some(held(90)), &record(0)), Due::Now);
            assert_eq!(due(at - 1, &acme(), &name, Some(held(90)), &record(0)), Due::At(at));
            times.insert(at / 3600);
        }
        assert!(times.len() > 30, "spread over {} hours", times.len());
    }

    #[test]
    fn what_is_missing_or_another_authoritys_is_due_at_once() {
        assert_eq!(due(7, &acme(), "a.example", None, &Record::default()), Due::Now);
        let other = Acme { directory: "https://other.example/".to_owned(), ..acme() };
        assert_eq!(due(7, &other, "a.example", Some(held(90)), &record(0)), Due::Now);
    }

    #[test]
    fn failures_pause_and_another_configuration_does_not_wait() {
        let mut before = 0;
        for count in 1..20 {
            let Due::At(at) = due(0, &acme(), "a.example", None, &record(count)) else {
                panic!("not paused after {count}");
            };
            let usual = (FIRST_PAUSE << (count - 1).min(12)).min(LONGEST_PAUSE);
            assert!((usual..=usual + usual / 10).contains(&at), "{count}: {at}");
            assert!(at >= before);
            before = at;
        }
        let other = Acme { email: Some("a@b.example".to_owned()), ..acme() };
        assert_eq!(due(0, &other, "a.example", None, &record(3)), Due::Now);
    }

    #[test]
    fn the_tries_of_the_first_hour_are_few() {
        let (mut now, mut tries, mut failing) = (0, 0, record(0));
        while now < 3600 {
            match due(now, &acme(), "a.example", None, &failing) {
                Due::Now => {
                    tries += 1;
                    failing = record(tries);
                    if let Some(failure) = &mut failing.failure {
                        failure.at = now;
                    }
                }
                Due::At(at) => now = at,
            }
        }
        assert_eq!(tries, 5);
    }

    #[test]
    fn short_lived_ones_are_tried_again_in_time() {
        let held = Validity { not_before: 0, not_after: 60 };
        let mut failing = record(9);
        failing.failure.as_mut().unwrap().at = 41;
        let Due::At(at) = due(41, &acme(), "a.example", Some(held), &failing) else {
            panic!("not paused");
        };
        assert!(at <= 47, "{at}");
    }
}
