//! Planning with instances whose health comes and goes, against a machine that obeys.

use super::machine::Machine;
use super::*;
use crate::fixture::{endpoint, generation, id, image, network, server};
use crate::observed::{Pace, RolloutRecord, Verdict};

const BOUND: Millis = Millis::seconds(60);

fn shop(inputs: &str) -> Generation {
    let web = server("web").replicas(3).replace_after(BOUND);
    let specs = vec![
        image("web", inputs),
        network("front", "10.0.0.0/24"),
        web.spec(),
        endpoint("shop", "127.0.0.1:8080", "web"),
    ];
    generation(if inputs == "v1" { 1 } else { 2 }, specs)
}

/// Plans and acts until nothing is left to do at this instant.
fn settle(machine: &mut Machine, desired: &Generation) {
    for _ in 0..100 {
        let (plan, _) = plan(desired, &machine.observed);
        assert_eq!(check::check(desired, &machine.observed, &plan), []);
        if plan.is_empty() {
            return;
        }
        machine.take(&plan);
    }
    panic!("does not settle: {:?}", machine.observed);
}

fn settled() -> (Machine, Generation, Vec<InstanceId>) {
    let (mut machine, desired) = (Machine::new(), shop("v1"));
    settle(&mut machine, &desired);
    let ids = ids(&machine);
    (machine, desired, ids)
}

fn ids(machine: &Machine) -> Vec<InstanceId> {
    machine.observed.instances.iter().map(|i| i.id.clone()).collect()
}

fn rotation(machine: &Machine) -> Vec<InstanceId> {
    let table = machine.observed.table.as_ref().unwrap();
    table.endpoints[0].backends.iter().map(|b| b.instance.clone()).collect()
}

fn sicken(machine: &mut Machine, id: &InstanceId) {
    let since = machine.observed.at;
    machine.instance(id).health = Verdict::Unready { since, reason: "503".to_owned() };
}

fn recover(machine: &mut Machine, id: &InstanceId) {
    let since = machine.observed.at;
    machine.instance(id).health = Verdict::Ready { since };
}

#[test]
fn an_unready_instance_leaves_rotation_and_comes_back() {
    let (mut machine, desired, all) = settled();
    sicken(&mut machine, &all[0]);
    settle(&mut machine, &desired);
    let (_, report) = plan(&desired, &machine.observed);
    assert_eq!(rotation(&machine), all[1..], "it leaves rotation at once");
    assert_eq!(ids(&machine), all, "and nothing else happens to it");
    assert_eq!(report.waiting[0].why, Some(Reason::Unready { last: "503".to_owned() }));
    let since = machine.instance(&all[0]).health.clone();
    let Verdict::Unready { since, .. } = since else { panic!("{since:?}") };
    assert_eq!(report.wake_at, Some(since.after(BOUND)), "its bound is not slept through");
    recover(&mut machine, &all[0]);
    settle(&mut machine, &desired);
    let (_, report) = plan(&desired, &machine.observed);
    assert_eq!((rotation(&machine), report.outcome), (all, Outcome::Converged));
}

#[test]
fn one_that_stays_unready_is_replaced_and_not_before_another_is_ready() {
    let (mut machine, desired, all) = settled();
    sicken(&mut machine, &all[0]);
    settle(&mut machine, &desired);
    machine.observed.at = machine.observed.at.after(BOUND);
    machine.healthy = false;
    settle(&mut machine, &desired);
    assert_eq!(machine.count("server.web"), 4, "one is made beside it");
    assert!(ids(&machine).contains(&all[0]), "which stays while that is not ready");
    let fresh = ids(&machine).into_iter().find(|id| !all.contains(id)).unwrap();
    recover(&mut machine, &fresh);
    settle(&mut machine, &desired);
    assert_eq!(machine.count("server.web"), 3);
    assert!(!ids(&machine).contains(&all[0]));
}

#[test]
fn one_that_recovers_late_makes_the_new_one_superfluous() {
    let (mut machine, desired, all) = settled();
    sicken(&mut machine, &all[0]);
    machine.observed.at = machine.observed.at.after(BOUND);
    machine.healthy = false;
    settle(&mut machine, &desired);
    recover(&mut machine, &all[0]);
    settle(&mut machine, &desired);
    assert_eq!(ids(&machine), all);
}

#[test]
fn when_all_are_unready_for_long_they_are_replaced_within_the_surge() {
    let (mut machine, desired, all) = settled();
    for id in &all {
        sicken(&mut machine, id);
    }
    machine.observed.at = machine.observed.at.after(BOUND);
    machine.healthy = false;
    settle(&mut machine, &desired);
    assert_eq!(machine.count("server.web"), 4, "no storm while what they need is away");
    machine.healthy = true;
    let fresh = ids(&machine).into_iter().find(|id| !all.contains(id)).unwrap();
    recover(&mut machine, &fresh);
    settle(&mut machine, &desired);
    assert_eq!(plan(&desired, &machine.observed).1.outcome, Outcome::Converged);
    assert!(ids(&machine).iter().all(|id| !all.contains(id)));
}

#[test]
fn a_rollout_lets_old_ones_that_may_come_back_be_until_it_is_proved() {
    let (mut machine, _, all) = settled();
    let next = shop("v2");
    let (started, deadline) = (machine.observed.at, machine.observed.at.after(BOUND));
    machine.observed.rollout = Some(RolloutRecord::new(2, started, deadline));
    machine.healthy = false;
    sicken(&mut machine, &all[0]);
    settle(&mut machine, &next);
    assert!(all.iter().all(|id| ids(&machine).contains(id)), "the old ones are not touched");
    let mut at_least = 2;
    machine.healthy = true;
    for fresh in ids(&machine).into_iter().filter(|id| !all.contains(id)) {
        recover(&mut machine, &fresh);
        settle(&mut machine, &next);
        assert!(rotation(&machine).len() >= at_least);
        at_least = 3;
    }
    assert!(ids(&machine).iter().all(|id| !all.contains(id)));
}

#[test]
fn a_dead_instance_is_replaced_at_once() {
    let (mut machine, desired, all) = settled();
    let since = machine.observed.at;
    let reason = "not alive: 503".to_owned();
    machine.instance(&all[0]).health = Verdict::Dead { since, reason };
    let (plan, _) = plan(&desired, &machine.observed);
    let made = plan.steps.iter().find(|s| matches!(s.action, Action::Create(_))).unwrap();
    assert!(made.because.to_string().contains("not alive: 503"), "{}", made.because);
    assert!(plan.steps.iter().any(|s| s.action == Action::Drain(all[0].clone())));
    settle(&mut machine, &desired);
    assert!(!ids(&machine).contains(&all[0]));
}

#[test]
fn crash_loops_are_told_and_backed_off_and_never_for_long_while_they_serve() {
    let (mut machine, desired, _) = settled();
    machine.observed.instances.clear();
    let at = machine.observed.at;
    let cause = "ended for want of memory (OOM)".to_owned();
    let pauses = |crashes: u32| {
        let pace = Pace { crashes, last_crash: Some((at, cause.clone())), ..Pace::default() };
        pace.not_before().since(at).0
    };
    assert_eq!([0, 1, 2, 3, 4, 6, 7, 50].map(pauses), [0, 0, 0, 100, 200, 800, 1000, 1000]);
    let pace = Pace { crashes: 3, last_crash: Some((at, cause)), ..Pace::default() };
    machine.observed.pace.insert(id("server.web"), pace);
    let (plan, report) = plan(&desired, &machine.observed);
    assert!(!plan.steps.iter().any(|s| matches!(s.action, Action::Create(_))));
    let why = report.waiting[0].why.as_ref().unwrap().to_string();
    assert_eq!(why, "crash loop: 3 in a row, the last one ended for want of memory (OOM)");
}
