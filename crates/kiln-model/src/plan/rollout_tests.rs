//! The ways of replacing, against a machine that obeys and a keeper that writes down.

use std::collections::BTreeSet;

use super::machine::Machine;
use super::*;
use crate::analysis::{Answers, Evidence};
use crate::fixture::{endpoint, generation, id, image, network, server};
use crate::observed::{CheckRecord, Phase, RolloutRecord, StepRecord};
use crate::spec::Spec;
use crate::spec::rollout::{Ask, CanaryStep, Check, Rollout, Strategy};

const WEB: &str = "server.web";

/// A shop of three web servers that are replaced in this way.
fn shop(inputs: &str, rollout: &Rollout) -> Vec<Spec> {
    let web = server("web").replicas(3).rollout(rollout.clone()).spec();
    let endpoint = endpoint("shop", "127.0.0.1:8080", "web");
    vec![image("web", inputs), network("front", "10.0.0.0/24"), web, endpoint]
}

fn by(strategy: Strategy) -> Rollout {
    Rollout { strategy, watch: Millis(0), ..Rollout::rolling(Millis::seconds(60)) }
}

fn canary(steps: &[(u8, u64)]) -> Rollout {
    let step = |(weight, hold): &(u8, u64)| CanaryStep { weight: *weight, hold: Millis(*hold) };
    by(Strategy::Canary { steps: steps.iter().map(step).collect() })
}

/// A machine on which one generation follows the other, and what the keeper writes down.
struct Story {
    machine: Machine,
    desired: Generation,
}

/// What is seen after a turn.
struct Scene {
    outcome: Outcome,
    /// Instances of the new digest in rotation, and others.
    serving: (usize, usize),
    permille: Option<u16>,
    created: usize,
}

impl Story {
    /// The first generation serves; a second is committed.
    fn of(rollout: &Rollout) -> Self {
        let first = generation(1, shop("v1", rollout));
        let mut story = Self { machine: Machine::new(), desired: first };
        story.until(Outcome::Converged);
        story.begin(generation(2, shop("v2", rollout)));
        story
    }

    fn begin(&mut self, desired: Generation) {
        let observed = &mut self.machine.observed;
        let deadline = observed.at.after(Millis::seconds(60));
        observed.rollout = Some(RolloutRecord::new(desired.number, observed.at, deadline));
        observed.trial.judged = BTreeSet::from([id(WEB)]);
        self.desired = desired;
    }

    /// The rollout is over, well or not.
    fn end(&mut self, aim: Generation) {
        let observed = &mut self.machine.observed;
        observed.rollout = None;
        observed.trial = crate::observed::Trial::default();
        observed.active_since = Some(observed.at);
        self.desired = aim;
    }

    fn turn(&mut self) -> Scene {
        let (plan, report) = plan(&self.desired, &self.machine.observed);
        assert_eq!(check::check(&self.desired, &self.machine.observed, &plan), []);
        let at = self.machine.observed.at;
        if let Some(rollout) = &mut self.machine.observed.rollout {
            for milestone in &report.milestones {
                match milestone {
                    Milestone::Step { component, step } => {
                        let record = StepRecord { step: *step, since: at };
                        rollout.steps.insert(component.clone(), record);
                    }
                    Milestone::Serving => rollout.serving = Some(at),
                }
            }
        }
        let makes = |s: &&Step| matches!(s.action, Action::Create(Creation::Instance(_)));
        let created = plan.steps.iter().filter(makes).count();
        self.machine.take(&plan);
        Scene { outcome: report.outcome, created, ..self.scene() }
    }

    fn scene(&self) -> Scene {
        let observed = &self.machine.observed;
        let wanted = self.desired.content.components[&id(WEB)].digest;
        let table = observed.table.as_ref().unwrap();
        let of = |id: &InstanceId| observed.instances.iter().find(|i| i.id == *id).unwrap().digest;
        let (new, old): (Vec<_>, Vec<_>) =
            table.endpoints[0].backends.iter().partition(|b| of(&b.instance) == wanted);
        Scene {
            outcome: Outcome::Progressing,
            serving: (new.len(), old.len()),
            permille: table.splits.first().map(|s| s.permille),
            created: 0,
        }
    }

    fn until(&mut self, outcome: Outcome) -> Vec<Scene> {
        let mut scenes = Vec::new();
        for _ in 0..500 {
            scenes.push(self.turn());
            // What keeps its old ones has nothing left to do when it is through.
            let reached = scenes.last().unwrap().outcome;
            if reached == outcome || reached == Outcome::Converged {
                return scenes;
            }
        }
        panic!("never {outcome:?}: {:?}", self.machine.observed);
    }

    fn answered(&mut self, old: (u64, u64), new: (u64, u64)) {
        let answers = |(good, bad): (u64, u64)| Answers {
            responses: [0, good, 0, 0, bad],
            ..Answers::default()
        };
        let evidence = Evidence { new: answers(new), old: answers(old) };
        self.machine.observed.trial.evidence.insert(id(WEB), evidence);
    }
}

#[test]
fn blue_green_switches_once_and_keeps_the_old_for_a_while() {
    let rollout = Rollout { keep: Millis(50), ..by(Strategy::BlueGreen) };
    let mut story = Story::of(&rollout);
    let scenes = story.until(Outcome::Ready);
    assert!(scenes.iter().all(|s| matches!(s.serving, (0, 3) | (3, 0))));
    assert_eq!(story.machine.count(WEB), 6, "the old stay until the change stands");
    let second = story.desired.clone();
    story.end(second);
    for _ in 0..40 {
        assert_eq!(story.turn().serving, (3, 0));
    }
    assert_eq!(story.machine.count(WEB), 6);
    // Back within that time nothing is made.
    story.begin(generation(3, shop("v1", &rollout)));
    assert!(story.until(Outcome::Ready).iter().all(|s| s.created == 0));
    let third = story.desired.clone();
    story.end(third);
    story.until(Outcome::Converged);
    story.machine.observed.at = story.machine.observed.at.after(Millis(60));
    story.until(Outcome::Converged);
    assert_eq!(story.machine.count(WEB), 3);
}

#[test]
fn a_canary_gets_its_share_step_by_step_and_the_old_stay() {
    let mut story = Story::of(&canary(&[(10, 20), (50, 20), (100, 20)]));
    let scenes = story.until(Outcome::Ready);
    let mut shares: Vec<Option<u16>> = scenes.iter().map(|s| s.permille).collect();
    shares.dedup();
    assert_eq!(shares, [None, Some(100), Some(500), Some(1000), None]);
    for permille in [100, 500, 1000] {
        let held = scenes.iter().filter(|s| s.permille == Some(permille)).count();
        assert!(held >= 20, "{permille} was held for {held}");
    }
    let of = |permille| scenes.iter().find(|s| s.permille == Some(permille)).unwrap().serving;
    assert_eq!((of(100), of(500), of(1000)), ((1, 3), (2, 3), (3, 3)));
    let last = scenes.last().unwrap();
    assert_eq!((last.serving, last.permille), ((3, 0), None));
    assert_eq!(story.machine.count(WEB), 6);
    let second = story.desired.clone();
    story.end(second);
    story.until(Outcome::Converged);
    assert_eq!(story.machine.count(WEB), 3);
}

#[test]
fn a_canary_that_does_worse_is_called_off_and_no_old_one_was_touched() {
    let mut story = Story::of(&canary(&[(10, 1000)]));
    let old: Vec<InstanceId> =
        story.machine.observed.instances.iter().map(|i| i.id.clone()).collect();
    while story.turn().permille.is_none() {}
    story.answered((900, 0), (95, 0));
    assert_eq!(story.turn().outcome, Outcome::Progressing);
    story.answered((900, 0), (90, 10));
    let (_, report) = plan(&story.desired, &story.machine.observed);
    assert_eq!(report.outcome, Outcome::Worse);
    let why = report.waiting[0].why.as_ref().unwrap().to_string();
    assert_eq!(why, "10.0 % of 100 requests failed, 0.0 % of 900 before");
    story.end(generation(1, shop("v1", &canary(&[(10, 1000)]))));
    let scenes = story.until(Outcome::Converged);
    assert!(scenes.iter().all(|s| s.permille.is_none() && s.serving == (3, 0)));
    assert!(story.machine.observed.instances.iter().all(|i| old.contains(&i.id)));
}

#[test]
fn one_that_ends_by_itself_calls_the_change_off() {
    let mut story = Story::of(&by(Strategy::Rolling { surge: 1, unavailable: 0 }));
    story.turn();
    story.machine.observed.trial.fallen.insert(id(WEB), "ended for want of memory".to_owned());
    let (_, report) = plan(&story.desired, &story.machine.observed);
    assert_eq!(report.outcome, Outcome::Worse);
    // Of what is not replaced nothing is said: it was so before.
    story.machine.observed.trial.judged.clear();
    let (_, report) = plan(&story.desired, &story.machine.observed);
    assert_eq!(report.outcome, Outcome::Progressing);
}

#[test]
fn a_step_waits_for_its_check() {
    let mut rollout = canary(&[(10, 5), (50, 5)]);
    let ask = Ask::Command(vec!["/bin/true".to_owned()]);
    rollout.analysis.check = Some(Check { ask, every: Millis(1), timeout: Millis(1), user: None });
    let mut story = Story::of(&rollout);
    for _ in 0..40 {
        assert!(story.turn().permille.is_none_or(|p| p == 100));
    }
    let passed = Some(story.machine.observed.at);
    let record = CheckRecord { passed, failure: None };
    story.machine.observed.trial.checks.insert(id(WEB), record);
    let turned = (0..10).any(|_| story.turn().permille == Some(500));
    assert!(turned);
    let failure = Some("status 500".to_owned());
    let record = CheckRecord { passed, failure };
    story.machine.observed.trial.checks.insert(id(WEB), record);
    assert_eq!(story.turn().outcome, Outcome::Worse);
}

#[test]
fn what_is_asked_is_watched_before_it_stands() {
    let mut rollout = by(Strategy::BlueGreen);
    rollout.watch = Millis(30);
    let mut story = Story::of(&rollout);
    story.machine.observed.trial.watch = rollout.watch;
    story.answered((500, 0), (0, 0));
    let scenes = story.until(Outcome::Ready);
    assert!(scenes.iter().filter(|s| s.serving == (3, 0)).count() >= 30);
    // Where nobody asks there is nothing to see.
    let mut story = Story::of(&rollout);
    story.machine.observed.trial.watch = rollout.watch;
    assert!(story.until(Outcome::Ready).len() < 30);
}

#[test]
fn as_many_may_be_missing_as_is_said() {
    let mut story = Story::of(&by(Strategy::Rolling { surge: 0, unavailable: 1 }));
    for scene in story.until(Outcome::Ready) {
        assert!(scene.serving.0 + scene.serving.1 >= 2);
        assert!(scene.created <= 1);
    }
}

#[test]
fn a_switch_is_not_taken_back_for_one_that_was_killed() {
    let mut story = Story::of(&by(Strategy::BlueGreen));
    while story.turn().serving != (3, 0) {}
    let wanted = story.desired.content.components[&id(WEB)].digest;
    let victim = story.machine.observed.instances.iter_mut().find(|i| i.digest == wanted);
    victim.unwrap().phase = Phase::Ended { cause: crate::observed::Ending::Killed(9) };
    let scenes = story.until(Outcome::Ready);
    assert!(scenes.iter().all(|s| s.serving.1 == 0 && s.serving.0 >= 2));
}

#[test]
fn where_two_may_not_serve_at_once_what_is_asked_is_held_until_the_old_have_answered() {
    let rollout = Rollout { overlap: false, ..by(Strategy::BlueGreen) };
    let mut story = Story::of(&rollout);
    let wanted = story.desired.content.components[&id(WEB)].digest;
    for instance in &mut story.machine.observed.instances {
        instance.in_flight = 2;
    }
    while story.turn().serving != (0, 0) {}
    let table = story.machine.observed.table.clone().unwrap();
    assert!(table.endpoints[0].sleeps, "what is asked is held");
    for _ in 0..20 {
        assert_eq!(story.turn().serving, (0, 0));
    }
    for instance in story.machine.observed.instances.iter_mut().filter(|i| i.digest != wanted) {
        instance.in_flight = 0;
    }
    assert_eq!(story.turn().serving, (3, 0));
    assert!(!story.machine.observed.table.as_ref().unwrap().endpoints[0].sleeps);
    story.until(Outcome::Ready);
}

#[test]
fn a_hand_over_waits_no_longer_than_a_drain() {
    let rollout = Rollout { overlap: false, ..by(Strategy::BlueGreen) };
    let mut story = Story::of(&rollout);
    for instance in &mut story.machine.observed.instances {
        instance.in_flight = 1;
    }
    while story.turn().serving != (0, 0) {}
    story.turn();
    story.machine.observed.at = story.machine.observed.at.after(DRAIN_BOUND);
    assert_eq!(story.turn().serving, (3, 0));
}
