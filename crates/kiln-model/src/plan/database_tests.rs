//! Databases against a machine in memory that loses instances at any moment. What is acknowledged is
//! counted; the laws are that it is never lost and never acknowledged by two.

use proptest::prelude::*;

use super::Outcome;
use super::database_machine::{Volume, World, desired};
use crate::data::{Branch, BranchOrigin};
use crate::generation::Generation;
use crate::name::InstanceId;

#[test]
fn a_first_one_is_begun_and_seated() {
    let desired = desired(1, 256, 0);
    let mut world = World::new(false);
    world.converge(&desired);
    let [instance] = &world.observed.instances[..] else { panic!("one instance") };
    assert_eq!(world.route().and_then(|r| r.primary.as_ref()), Some(&instance.id));
    assert!(world.head.is_some());
}

#[test]
fn a_change_goes_over_by_hold_fence_and_promotion() {
    let mut world = World::new(false);
    world.converge(&desired(1, 256, 0));
    let before = world.head.clone();
    let wanted = desired(2, 512, 0);
    let mut seen = Vec::new();
    for _ in 0..200 {
        world.pass();
        let outcome = world.step(&wanted);
        let state = world.route().map(|r| (r.primary.is_some(), r.holds)).expect("a route");
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        if outcome == Outcome::Converged {
            break;
        }
    }
    assert_eq!(seen, [(true, false), (true, true), (false, false), (true, false)]);
    assert_ne!(world.head, before);
    assert_eq!(world.observed.instances.len(), 1);
}

#[test]
fn another_daemon_fences_nobody_before_it_has_asked() {
    let mut world = World::new(false);
    world.converge(&desired(1, 256, 0));
    let primary = world.route().and_then(|route| route.primary.clone());
    world.meet_another_daemon(3);
    for _ in 0..5 {
        world.pass();
        let _ = world.step(&desired(1, 256, 0));
        assert_eq!(world.route().and_then(|route| route.primary.clone()), primary);
    }
    // In the middle of a switch: held goes on being held, and the switch is gone through with.
    let wanted = desired(2, 512, 0);
    while !world.route().is_some_and(|route| route.holds) {
        world.pass();
        let _ = world.step(&wanted);
    }
    world.meet_another_daemon(3);
    for _ in 0..3 {
        world.pass();
        let _ = world.step(&wanted);
        assert!(world.route().is_some_and(|route| route.holds && route.primary == primary));
    }
    world.converge(&wanted);
    assert_ne!(world.route().and_then(|route| route.primary.clone()), primary);
}

#[test]
fn a_transaction_that_goes_on_puts_the_switch_off_and_does_not_end_it() {
    let mut world = World::new(false);
    world.converge(&desired(1, 256, 0));
    let before = world.head.clone();
    let wanted = desired(2, 512, 0);
    world.busy = true;
    let mut held = 0;
    for _ in 0..1_000 {
        world.pass();
        let _ = world.step(&wanted);
        held += u32::from(world.route().is_some_and(|route| route.holds));
    }
    assert_eq!(world.head, before, "nothing was promoted");
    assert!((1..800).contains(&held), "clients were let through between attempts: {held}");
    world.converge(&wanted);
    assert_ne!(world.head, before);
}

#[test]
fn going_back_opens_a_branch_and_going_forward_loses_nothing() {
    let component: crate::name::ComponentId = "database.orders".parse().unwrap();
    let mut world = World::new(false);
    let mut wanted = desired(1, 256, 0);
    world.converge(&wanted);
    let went_on = |world: &mut World| {
        let head = world.head.clone().unwrap();
        for _ in 0..10 {
            world.pass();
        }
        (world.volumes[&head].branch, world.volumes[&head].position)
    };
    let first = went_on(&mut world);
    let old = world.head.clone().unwrap();
    wanted = desired(2, 512, 0);
    world.converge(&wanted);
    let second = went_on(&mut world);
    assert!(second.1 > first.1 && second.0 == 0);
    // Back to what it was at the end of the first generation, in a branch of its own.
    let from = BranchOrigin::Volume { volume: old, generation: 1 };
    let mut back = desired(3, 256, 0);
    back.content.data.insert(component.clone(), Branch::new(from));
    back.content = back.content.following(&wanted.content, 3);
    world.converge(&back);
    let third = went_on(&mut world);
    assert_eq!(third.0, 3);
    assert!(third.1 < second.1 + 100, "{third:?}");
    // Forward again: all is there that was.
    let mut forward = desired(4, 512, 0);
    forward.content.data.insert(component, Branch::first());
    world.converge(&forward);
    let head = world.head.clone().unwrap();
    assert_eq!(world.volumes[&head].branch, 0);
    assert!(world.volumes[&head].position >= second.1);
}

#[test]
fn data_outlives_what_is_declared_unless_it_is_to_go() {
    let component: crate::name::ComponentId = "database.orders".parse().unwrap();
    let mut world = World::new(false);
    let first = desired(1, 256, 0);
    world.converge(&first);
    let mut nothing = Generation { number: 2, ..Generation::none(first.stack.clone()) };
    world.converge(&nothing);
    assert!(world.observed.instances.is_empty() && world.head.is_some());
    // Declared anew it goes on, and retired with its data it is gone.
    world.converge(&Generation { number: 3, ..first.clone() });
    assert!(world.observed.instances.len() == 1 && world.volumes.len() == 1);
    nothing.content.data.insert(component, Branch::new(BranchOrigin::Discarded));
    nothing.content = nothing.content.following(&first.content, 4);
    world.converge(&Generation { number: 4, ..nothing.clone() });
    assert!(world.volumes.is_empty() && world.observed.volumes.is_empty());
    let again = first.content.following(&nothing.content, 5);
    world.converge(&Generation { number: 5, content: again.clone(), ..nothing.clone() });
    let head = world.head.clone().unwrap();
    assert_eq!(world.volumes[&head].branch, 4);
    // That it was asked for once says nothing of what has been written since.
    let retired = Generation::none(nothing.stack.clone()).content.following(&again, 6);
    world.converge(&Generation { number: 6, content: retired, ..nothing.clone() });
    assert!(world.observed.instances.is_empty() && world.volumes.len() == 1);
    world.converge(&Generation { number: 4, ..nothing });
    assert_eq!(world.volumes.len(), 1, "nor does going back to the one that asked");
}

/// What happens to the machine between two steps.
#[derive(Debug, Clone)]
enum Fate {
    Nothing,
    Kill(usize),
    Hang(usize),
    Change(u64),
    Busy(bool),
    /// Back to the n-th of the states that are kept.
    Back(usize),
    /// Another daemon, which hears of nobody for so many looks.
    Newcomer(u32),
    /// The gateway and all instances are gone, as after a power cut.
    Reboot,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        12 => Just(Fate::Nothing),
        2 => (0_usize..4).prop_map(Fate::Kill),
        1 => (0_usize..4).prop_map(Fate::Hang),
        1 => (2_u64..6).prop_map(Fate::Change),
        1 => any::<bool>().prop_map(Fate::Busy),
        1 => (0_usize..4).prop_map(Fate::Back),
        1 => (0_u32..4).prop_map(Fate::Newcomer),
        1 => Just(Fate::Reboot),
    ];
    prop::collection::vec(fate, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_acknowledged_write_is_lost(replicas in 0_u32..3, fates in fates()) {
        let mut number = 1;
        let mut wanted = desired(number, 256, replicas);
        let mut world = World::new(replicas > 0);
        for fate in fates {
            match fate {
                Fate::Nothing => {}
                Fate::Kill(n) => world.kill(n),
                Fate::Hang(n) => world.hang(n),
                Fate::Change(memory) => {
                    number += 1;
                    let next = desired(number, memory * 128, replicas).content;
                    wanted = Generation {
                        number,
                        content: next.following(&wanted.content, number),
                        ..wanted
                    };
                }
                Fate::Back(n) => {
                    number += 1;
                    if let Some(back) = world.back(n) {
                        let component = "database.orders".parse().expect("a component");
                        let mut next = wanted.content.clone();
                        next.data.insert(component, back);
                        let content = next.following(&wanted.content, number);
                        wanted = Generation { number, content, ..wanted };
                    }
                }
                Fate::Busy(busy) => world.busy = busy,
                Fate::Newcomer(deaf) => world.meet_another_daemon(deaf),
                Fate::Reboot => {
                    world.observed.instances.clear();
                    world.observed.networks.clear();
                    world.observed.gates.clear();
                    world.observed.table = None;
                }
            }
            world.pass();
            let _ = world.step(&wanted);
        }
        world.converge(&wanted);
        for (branch, acknowledged) in &world.acknowledged {
            let is_end = |(id, volume): &(&InstanceId, &Volume)| {
                volume.branch == *branch && (volume.tip || Some(*id) == world.head.as_ref())
            };
            let [(_, volume)] = world.volumes.iter().filter(is_end).collect::<Vec<_>>()[..] else {
                panic!("branch {branch} has not one end: {:#?}", world.volumes);
            };
            prop_assert!(volume.position >= *acknowledged, "of branch {branch}");
        }
    }
}
