//! What to do next about a branch. Pure: all that counts is handed in.

use std::time::{Duration, Instant};

use super::record::Record;

/// How often a commit is tried that failed for what may pass: what it is built from can't be
/// fetched, or there is no room.
pub(super) const MOST_TRIES: u32 = 3;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The generation that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) number: u64,
    /// Whether a rollback brought it.
    pub(super) by_rollback: bool,
}

/// A commit that failed for what may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) commit: String,
    /// How often it was tried.
    pub(super) tries: u32,
    /// When it is tried again.
    pub(super) at: Instant,
}

/// All that counts.
pub(super) struct Situation<'a> {
    /// The commit that the branch is at.
    pub(super) tip: &'a str,
    /// What became of commits so far.
    pub(super) record: &'a Record,
    /// The commit whose rollout is under way.
    pub(super) rolling_out: Option<&'a str>,
    /// The generation that the stack is pinned to.
    pub(super) pin: Option<u64>,
    pub(super) active: Option<Active>,
    pub(super) retry: Option<&'a Retry>,
    pub(super) now: Instant,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: the tip is on its way, serves, or was given up.
    Nothing,
    /// Nothing as long as the stack is pinned.
    Pinned,
    /// Nothing before the time of its retry.
    Later,
    /// The tip is to be deployed.
    Deploy,
}

/// Decides.
pub(super) fn decide(situation: &Situation<'_>) -> Decision {
    let Situation { tip, record, rolling_out, pin, active, retry, now } = *situation;
    if rolling_out == Some(tip) || record.given_up(tip).is_some() {
        return Decision::Nothing;
    }
    let newest = record.results.first().filter(|result| result.commit == tip);
    let serves = newest
        .filter(|result| result.serves())
        .is_some_and(|result| !was_rolled_back(active, result.generation));
    if serves {
        return Decision::Nothing;
    }
    if pin.is_some() {
        return Decision::Pinned;
    }
    match retry {
        Some(retry) if retry.commit == tip && now < retry.at => Decision::Later,
        _ => Decision::Deploy,
    }
}

/// Whether a rollback has taken the place of what came of a commit. Where a person has applied
/// something else, that stays until the next commit.
fn was_rolled_back(active: Option<Active>, generation: Option<u64>) -> bool {
    active.is_some_and(|active| active.by_rollback && Some(active.number) > generation)
}

/// The pause after so many failures in a row.
pub(super) fn pause(every: Duration, failures: u32) -> Duration {
    every.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE.max(every))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Outcome, result};
    use super::*;

    struct Case {
        record: Record,
        rolling_out: Option<&'static str>,
        pin: Option<u64>,
        active: Option<Active>,
        retry: Option<Retry>,
    }

    fn case(results: &[(&str, Outcome, Option<u64>)]) -> Case {
        let mut record = Record::default();
        for (commit, outcome, generation) in results {
            record.add(result(commit, *outcome, *generation));
        }
        let active = results.iter().rev().find_map(|(_, _, generation)| *generation);
        let active = active.map(|number| Active { number, by_rollback: false });
        Case { record, rolling_out: None, pin: None, active, retry: None }
    }

    fn of(tip: &str, case: &Case) -> Decision {
        decide(&Situation {
            tip,
            record: &case.record,
            rolling_out: case.rolling_out,
            pin: case.pin,
            active: case.active,
            retry: case.retry.as_ref(),
            now: Instant::now(),
        })
    }

    #[test]
    fn a_new_commit_is_deployed_and_a_known_one_is_not() {
        assert_eq!(of("a", &case(&[])), Decision::Deploy);
        let served = case(&[("a", Outcome::Deployed, Some(1))]);
        assert_eq!(of("a", &served), Decision::Nothing);
        assert_eq!(of("b", &served), Decision::Deploy);
        let same = case(&[("a", Outcome::Deployed, Some(1)), ("b", Outcome::Unchanged, Some(1))]);
        assert_eq!(of("b", &same), Decision::Nothing);
        let under_way = Case { rolling_out: Some("b"), ..served };
        assert_eq!(of("b", &under_way), Decision::Nothing);
        assert_eq!(of("c", &under_way), Decision::Deploy, "only the newest matters");
    }

    #[test]
    fn a_bad_commit_is_not_tried_again_and_the_one_before_it_can_come_back() {
        let bad = case(&[("a", Outcome::Deployed, Some(1)), ("b", Outcome::GivenUp, None)]);
        assert_eq!(of("b", &bad), Decision::Nothing);
        assert_eq!(of("c", &bad), Decision::Deploy);
        assert_eq!(of("a", &bad), Decision::Deploy, "forced back: planned, and found unchanged");
        let late = case(&[("a", Outcome::Superseded, Some(1))]);
        assert_eq!(of("a", &late), Decision::Deploy);
    }

    #[test]
    fn a_rollback_holds_until_it_is_resumed() {
        let mut case =
            case(&[("a", Outcome::Deployed, Some(1)), ("b", Outcome::Deployed, Some(2))]);
        case.active = Some(Active { number: 3, by_rollback: true });
        case.pin = Some(3);
        assert_eq!(of("b", &case), Decision::Pinned);
        assert_eq!(of("c", &case), Decision::Pinned);
        case.pin = None;
        assert_eq!(of("b", &case), Decision::Deploy, "the branch is followed again");
        case.record.add(result("b", Outcome::Unchanged, Some(3)));
        assert_eq!(of("b", &case), Decision::Nothing, "it is what the rollback brought");
    }

    #[test]
    fn what_a_person_has_applied_stays_until_the_next_commit() {
        let mut case = case(&[("a", Outcome::Deployed, Some(1))]);
        case.active = Some(Active { number: 2, by_rollback: false });
        assert_eq!(of("a", &case), Decision::Nothing);
        assert_eq!(of("b", &case), Decision::Deploy);
    }

    #[test]
    fn a_failure_that_may_pass_is_waited_for_and_a_newer_commit_is_not() {
        let at = Instant::now() + Duration::from_secs(60);
        let retry = Some(Retry { commit: "a".to_owned(), tries: 1, at });
        let case = Case { retry, ..case(&[]) };
        assert_eq!(of("a", &case), Decision::Later);
        assert_eq!(of("b", &case), Decision::Deploy);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let every = Duration::from_secs(10);
        let pauses: Vec<u64> = (0..8).map(|n| pause(every, n).as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(pause(Duration::from_secs(3_600), 9).as_secs(), 3_600);
    }
}
