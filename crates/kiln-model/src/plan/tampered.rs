//! Planning with instances that drift: how fast they are replaced, and of which evidence is kept.

use super::machine::Machine;
use super::*;
use crate::drift::{Aspect, Drift};
use crate::fixture::{endpoint, generation, id, image, network, server};
use crate::observed::{Ending, Pace, Phase};

fn shop(replicas: u32, quarantine: bool) -> Generation {
    let web = server("web").replicas(replicas);
    let web = if quarantine { web.quarantine() } else { web };
    let specs = vec![
        image("web", "v1"),
        network("front", "10.0.0.0/24"),
        web.spec(),
        endpoint("shop", "127.0.0.1:8080", "web"),
    ];
    generation(1, specs)
}

fn settle(machine: &mut Machine, desired: &Generation) -> Vec<Doomed> {
    let mut doomed = Vec::new();
    for _ in 0..100 {
        let (plan, _) = plan(desired, &machine.observed);
        assert_eq!(check::check(desired, &machine.observed, &plan), []);
        if plan.is_empty() {
            return doomed;
        }
        doomed.extend(plan.steps.iter().filter_map(|step| match &step.action {
            Action::Destroy(it) => Some(it.clone()),
            _ => None,
        }));
        machine.take(&plan);
    }
    panic!("does not settle: {:?}", machine.observed);
}

fn tamper(machine: &mut Machine, id: &InstanceId) {
    machine.instance(id).drift = vec![Drift::new(Aspect::CgroupMemory, "64", "max")];
}

fn ids(machine: &Machine) -> Vec<InstanceId> {
    machine.observed.instances.iter().map(|i| i.id.clone()).collect()
}

#[test]
fn evidence_is_kept_of_what_has_drifted_where_the_policy_says_so() {
    for (quarantine, expected) in [(true, Evidence::Kept), (false, Evidence::None)] {
        let desired = shop(3, quarantine);
        let mut machine = Machine::new();
        settle(&mut machine, &desired);
        let all = ids(&machine);
        tamper(&mut machine, &all[0]);
        machine.instance(&all[1]).phase = Phase::Ended { cause: Ending::Killed(9) };
        let doomed = settle(&mut machine, &desired);
        assert_eq!(doomed.len(), 2);
        assert!(doomed.contains(&Doomed::Instance(all[0].clone(), expected)), "{doomed:?}");
        let killed = Doomed::Instance(all[1].clone(), Evidence::None);
        assert!(doomed.contains(&killed), "of one that just ended there is nothing to be kept");
    }
}

#[test]
fn the_checker_sees_evidence_that_is_lost_or_kept_without_a_reason() {
    let desired = shop(2, true);
    let mut machine = Machine::new();
    settle(&mut machine, &desired);
    let all = ids(&machine);
    tamper(&mut machine, &all[0]);
    let wrong = |instance: &InstanceId, evidence| {
        let action = Action::Destroy(Doomed::Instance(instance.clone(), evidence));
        let step = Step { action, after: Vec::new(), because: Reason::Replaced };
        let found = check::check(&desired, &machine.observed, &Plan { steps: vec![step] });
        found.contains(&check::Violation::WrongEvidence(instance.clone()))
    };
    assert!(wrong(&all[0], Evidence::None) && !wrong(&all[0], Evidence::Kept));
    assert!(wrong(&all[1], Evidence::Kept) && !wrong(&all[1], Evidence::None));
}

#[test]
fn what_is_on_its_way_is_not_made_twice_in_a_storm() {
    let desired = shop(3, false);
    let mut machine = Machine::new();
    settle(&mut machine, &desired);
    machine.observed.at = Timestamp(100_000);
    let all = ids(&machine);
    tamper(&mut machine, &all[0]);
    tamper(&mut machine, &all[1]);
    let starting = crate::observed::Verdict::Starting { last: None };
    machine.instance(&all[2]).health = starting;
    machine.instance(&all[2]).created_at = Timestamp(99_900);
    let last_made = Timestamp(99_900);
    let pace = Pace { in_last_minute: 200, last_made, ..Pace::default() };
    machine.observed.pace.insert(id("server.web"), pace);
    let (plan, report) = plan(&desired, &machine.observed);
    assert!(!plan.steps.iter().any(|s| matches!(s.action, Action::Create(_))));
    assert_eq!(report.waiting[0].why, Some(Reason::Storm));
}

/// How many are made in one plan after so many within the last minute.
fn made(tampered: usize, killed: usize, in_last_minute: u32, ago: u64) -> (usize, Report) {
    let desired = shop(6, false);
    let mut machine = Machine::new();
    settle(&mut machine, &desired);
    machine.observed.at = Timestamp(100_000);
    let all = ids(&machine);
    for instance in &all[..tampered] {
        tamper(&mut machine, instance);
    }
    for instance in &all[6 - killed..] {
        machine.instance(instance).phase = Phase::Ended { cause: Ending::Killed(9) };
    }
    let last_made = Timestamp(100_000 - ago);
    let pace = Pace { in_last_minute, last_made, ..Pace::default() };
    machine.observed.pace.insert(id("server.web"), pace);
    let (plan, report) = plan(&desired, &machine.observed);
    assert_eq!(check::check(&desired, &machine.observed, &plan), []);
    let made = plan.steps.iter().filter(|s| matches!(s.action, Action::Create(_))).count();
    (made, report)
}

#[test]
fn a_storm_is_slowed_down_to_one_a_second() {
    // As many as the surge has room for, until the bound of the minute.
    assert_eq!(made(3, 0, 50, 0).0, made(3, 0, 0, 0).0);
    assert!(made(3, 0, 50, 0).0 >= 1);
    let (held, report) = made(3, 0, 120, 999);
    assert_eq!(held, 0);
    assert_eq!(report.waiting[0].why, Some(Reason::Storm));
    assert_eq!(report.wake_at, Some(Timestamp(100_001)), "it is not slept through");
    assert_eq!(made(3, 0, 120, 1_000).0, 1);
    assert_eq!(made(3, 0, 500, 1_000).0, 1);
}

#[test]
fn no_storm_keeps_one_from_being_made_while_fewer_than_wanted_are_ready() {
    assert_eq!(made(0, 2, 500, 0).0, 2, "those that were killed do not answer");
    assert_eq!(made(2, 1, 500, 0).0, 1, "those that have drifted do");
}
