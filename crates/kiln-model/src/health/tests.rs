//! The machine beside what its documentation says, over any sequence of answers.

use proptest::prelude::*;

use super::*;
use crate::spec::health::{Liveness, Probe, Startup};

fn health(failures: u32, successes: u32) -> Health {
    Health {
        probe: Probe::Tcp { port: 1 },
        every: Millis::seconds(1),
        timeout: Millis(500),
        failures,
        successes,
        startup: None,
        liveness: None,
        replace_after: None,
    }
}

fn apart(failures: u32, successes: u32, liveness: u32) -> Health {
    let probe = Probe::Tcp { port: 2 };
    let (every, timeout) = (Millis::seconds(5), Millis::seconds(1));
    Health {
        liveness: Some(Liveness { probe, every, timeout, failures: liveness }),
        replace_after: Some(Millis::seconds(60)),
        ..health(failures, successes)
    }
}

fn answer(well: bool) -> Result<(), String> {
    if well { Ok(()) } else { Err("refused".to_owned()) }
}

/// The verdict's name after each of some answers.
fn names(course: &mut Course, health: &Health, answers: &[(Check, bool)]) -> Vec<&'static str> {
    let heard = |(n, (check, well)): (usize, &(Check, bool))| {
        let before = course.verdict().clone();
        let at = Timestamp(n as u64);
        let turned = course.heard(*check, answer(*well), health, Millis(n as u64), at);
        let kind = std::mem::discriminant(&before) != std::mem::discriminant(course.verdict());
        assert_eq!(turned, kind, "a turn is told of: {before:?} to {:?}", course.verdict());
        name(course.verdict())
    };
    answers.iter().enumerate().map(heard).collect()
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Starting { .. } => "starting",
        Verdict::Ready { .. } => "ready",
        Verdict::Unready { .. } => "unready",
        Verdict::Dead { .. } => "dead",
    }
}

/// How many answers at the end are like the last.
fn row(answers: &[bool]) -> u32 {
    let last = answers.last();
    let like = answers.iter().rev().take_while(|answer| Some(*answer) == last).count();
    u32::try_from(like).unwrap()
}

proptest! {
    #[test]
    fn one_check_for_all_three(
        failures in 1_u32..5,
        successes in 1_u32..5,
        answers in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let health = health(failures, successes);
        let all: Vec<_> = answers.iter().map(|well| (Check::Readiness, *well)).collect();
        let told = names(&mut Course::new(), &health, &all);
        let mut expected = "starting";
        for (n, told) in told.into_iter().enumerate() {
            let so_far = &answers[..=n];
            expected = match (expected, so_far[n]) {
                ("starting", true) if row(so_far) >= successes => "ready",
                ("ready", false) if row(so_far) >= failures => "dead",
                (before, _) => before,
            };
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn checks_apart(
        failures in 1_u32..5,
        successes in 1_u32..5,
        deaths in 1_u32..5,
        answers in prop::collection::vec((any::<bool>(), any::<bool>()), 0..80),
    ) {
        let health = apart(failures, successes, deaths);
        let check = |live: bool| if live { Check::Liveness } else { Check::Readiness };
        let all: Vec<_> = answers.iter().map(|(live, well)| (check(*live), *well)).collect();
        let told = names(&mut Course::new(), &health, &all);
        let (mut expected, mut started) = ("starting", false);
        let (mut asked, mut lived) = (Vec::new(), Vec::new());
        for ((live, well), told) in answers.into_iter().zip(told) {
            // What is heard of the life of one that has not started does not count.
            if live && started { lived.push(well) }
            if !live { asked.push(well) }
            expected = match (expected, live, well) {
                ("dead", ..) => "dead",
                (_, true, false) if started && row(&lived) >= deaths => "dead",
                ("starting" | "unready", false, true) if row(&asked) >= successes => "ready",
                ("ready", false, false) if row(&asked) >= failures => "unready",
                (before, ..) => before,
            };
            started |= expected == "ready";
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn what_is_found_in_rotation_serves_until_it_fails_in_a_row(
        failures in 1_u32..5,
        fails in 0_u32..8,
    ) {
        let mut course = Course::found(false, true, Timestamp(0));
        let answers = vec![(Check::Readiness, false); fails as usize];
        names(&mut course, &apart(failures, 1, 1), &answers);
        let expected = if fails >= failures { "unready" } else { "ready" };
        prop_assert_eq!(name(course.verdict()), expected);
        prop_assert!(course.has_started());
    }
}

#[test]
fn startup_comes_first_and_has_a_deadline() {
    let startup = Startup {
        probe: Probe::Tcp { port: 3 },
        timeout: Millis(500),
        deadline: Some(Millis(100)),
    };
    let health = Health { startup: Some(startup), ..apart(1, 1, 1) };
    let mut course = Course::new();
    assert_eq!(course.asks(&health), Check::Startup);
    assert_eq!(course.pause(Check::Startup, &health), Some(UNTIL_READY));
    let hear = |course: &mut Course, check, well, age| {
        course.heard(check, answer(well), &health, Millis(age), Timestamp(age))
    };
    assert!(!hear(&mut course, Check::Startup, false, 50));
    assert!(!hear(&mut course, Check::Liveness, false, 51), "it does not live yet");
    assert!(!hear(&mut course, Check::Startup, true, 99));
    assert_eq!((course.asks(&health), course.has_started()), (Check::Readiness, true));
    assert_eq!(name(course.verdict()), "starting");
    assert!(hear(&mut course, Check::Readiness, true, 120));
    let mut late = Course::new();
    assert!(hear(&mut late, Check::Startup, false, 100));
    let Verdict::Dead { reason, .. } = late.verdict() else { panic!("{late:?}") };
    assert_eq!(reason, "not started within 100ms: refused");
    assert_eq!(late.pause(Check::Startup, &health), None);
    assert!(!hear(&mut late, Check::Readiness, true, 130), "dead is for good");
}

#[test]
fn what_is_found_out_of_rotation_has_patience() {
    let last = |course: &Course| match course.verdict() {
        Verdict::Starting { last } => last.clone(),
        other => panic!("{other:?}"),
    };
    let mut course = Course::found(true, false, Timestamp(0));
    let fail = |course: &mut Course, health: &Health, at: u64| {
        course.heard(Check::Readiness, answer(false), health, Millis(at), Timestamp(at))
    };
    let all = health(2, 1);
    assert!(!fail(&mut course, &all, 1_999));
    assert_eq!(last(&course), None);
    assert!(!fail(&mut course, &all, 2_000));
    assert_eq!(last(&course).as_deref(), Some("refused"));
    // Where unready instances may come back, it may be one of those.
    let mut course = Course::found(true, false, Timestamp(0));
    let apart = apart(2, 1, 1);
    assert!(!fail(&mut course, &apart, 1_999));
    assert!(fail(&mut course, &apart, 2_000));
    assert_eq!(name(course.verdict()), "unready");
}
