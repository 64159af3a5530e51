//! Databases that go over to a newer major version, against the machine in memory of
//! `database_machine`: nothing that was acknowledged is lost, and a generation that is called off
//! leaves the old version at work.

use proptest::prelude::*;

use super::database_machine::World;
use super::{Outcome, Reason, plan};
use crate::data::DataOrigin;
use crate::fixture::{database, generation, image, network, secret};
use crate::generation::Generation;
use crate::name::InstanceId;
use crate::observed::{Ending, ObservedInstance, Phase, RolloutRecord};
use crate::quantity::{Bytes, Millis};

fn desired(number: u64, version: u32, memory: u64, replicas: u32) -> Generation {
    let specs = vec![
        image("pg", &format!("v{version}")),
        network("back", "10.0.0.0/24"),
        secret("orders"),
        database("orders").version(version).memory(Bytes::mib(memory)).replicas(replicas).spec(),
    ];
    generation(number, specs)
}

/// The machine with what a keeper does: one rollout at a time, given up or made active.
struct Keeper {
    world: World,
    active: Generation,
    wanted: Generation,
    /// Why the last one was given up.
    given_up: Vec<Option<Reason>>,
}

impl Keeper {
    /// One whose first generation is active.
    fn new(version: u32, replicas: u32) -> Self {
        let first = desired(1, version, 256, replicas);
        let world = World::new(replicas > 0);
        let mut keeper =
            Self { world, active: first.clone(), wanted: first.clone(), given_up: Vec::new() };
        keeper.begin(first);
        keeper.settle();
        keeper
    }

    fn begin(&mut self, wanted: Generation) {
        let now = self.world.observed.at;
        let deadline = now.after(Millis::seconds(600));
        self.world.observed.rollout = Some(RolloutRecord::new(wanted.number, now, deadline));
        let component = "database.orders".parse().expect("a component");
        self.world.observed.versions_before = [(component, version(&self.active))].into();
        self.wanted = wanted;
    }

    fn is_rolling(&self) -> bool {
        self.world.observed.rollout.is_some()
    }

    fn turn(&mut self) -> Outcome {
        self.world.pass();
        let (_, report) = plan(&self.wanted, &self.world.observed);
        let outcome = report.outcome;
        // As the keeper does: a generation whose fate is known is not worked at any more.
        if !self.is_rolling() || outcome == Outcome::Progressing {
            return self.world.step(&self.wanted);
        }
        match outcome {
            Outcome::Ready | Outcome::Converged => {
                self.active = self.wanted.clone();
                self.world.observed.rollout = None;
            }
            Outcome::Expired | Outcome::Worse => {
                assert!(!report.past_return, "given up past the point of return");
                self.given_up.push(report.waiting.first().and_then(|w| w.why.clone()));
                self.wanted = self.active.clone();
                self.world.observed.rollout = None;
            }
            Outcome::Progressing => {}
        }
        // Whatever is aimed at from now on can be had with the data that there is.
        if let Some(head) = &self.world.head {
            assert_eq!(self.world.volumes[head].version, version(&self.wanted));
        }
        outcome
    }

    /// Goes on until a generation is active and all is as it wants.
    fn settle(&mut self) {
        self.world.busy = false;
        for _ in 0..4_000 {
            if self.turn() == Outcome::Converged && !self.is_rolling() {
                return;
            }
        }
        let report = plan(&self.wanted, &self.world.observed).1;
        panic!("no end: {report:#?} {:#?}", self.world.observed.instances);
    }

    fn head_version(&self) -> u32 {
        self.world.volumes[self.world.head.as_ref().expect("there is data")].version
    }
}

fn version(generation: &Generation) -> u32 {
    let mut databases = generation.content.databases();
    databases.next().expect("there is one").2.identity.version
}

#[test]
fn rows_go_over_to_a_newer_version_by_hold_fence_and_promotion() {
    for replicas in 0..3 {
        let mut keeper = Keeper::new(13, replicas);
        let before = keeper.world.head.clone();
        for (number, version) in [(2, 15), (3, 17)] {
            keeper.begin(desired(number, version, 256, replicas));
            keeper.settle();
            assert_eq!((keeper.head_version(), keeper.active.number), (version, number));
        }
        assert_eq!(keeper.given_up, []);
        let instances = &keeper.world.observed.instances;
        assert_eq!(instances.len(), 1 + replicas as usize);
        assert_ne!(keeper.world.head, before);
        assert!(keeper.world.acknowledged[&0] > 0);
    }
}

#[test]
fn standbys_of_the_new_version_are_there_before_it_takes_writes() {
    let mut keeper = Keeper::new(15, 2);
    keeper.begin(desired(2, 17, 256, 2));
    while keeper.head_version() == 15 {
        let _ = keeper.turn();
    }
    let made = |origin: &DataOrigin| matches!(origin, DataOrigin::Standby { .. });
    let data = keeper.world.observed.instances.iter().filter_map(|i| i.data.as_ref());
    let new = data.filter(|d| keeper.world.volumes[&d.volume].version == 17);
    assert_eq!(new.filter(|d| d.origin.as_ref().is_some_and(made)).count(), 2);
    keeper.settle();
}

/// One with two standbys that goes over to another version, as soon as the new one has `ready` of its
/// standbys; the others hang.
fn with_standbys(ready: usize) -> (Keeper, Vec<InstanceId>) {
    let mut keeper = Keeper::new(15, 2);
    keeper.begin(desired(2, 17, 256, 2));
    loop {
        let _ = keeper.turn();
        let instances = &keeper.world.observed.instances;
        let new = |i: &&ObservedInstance| {
            let data = i.data.as_ref().expect("a database's");
            keeper.world.volumes[&data.volume].version == 17
                && matches!(data.origin, Some(DataOrigin::Standby { .. }))
        };
        let standbys: Vec<InstanceId> =
            instances.iter().filter(new).map(|i| i.id.clone()).collect();
        if standbys.len() == 2 {
            for id in &standbys[ready..] {
                let index = keeper.world.observed.instances.iter().position(|i| i.id == *id);
                keeper.world.hang(index.expect("it is there"));
            }
            return (keeper, standbys);
        }
    }
}

#[test]
fn writes_do_not_go_over_while_one_of_its_standbys_is_missing() {
    let (mut keeper, standbys) = with_standbys(1);
    let _ = keeper.turn();
    assert_eq!(keeper.head_version(), 15);
    assert!(keeper.world.route().is_some_and(|r| r.primary.is_some() && !r.holds));
    keeper.settle();
    assert_eq!(keeper.head_version(), 17);
    assert!(!keeper.world.running(&standbys[1]));
}

#[test]
fn a_standby_of_the_new_version_never_inherits_from_the_old_one() {
    let (mut keeper, standbys) = with_standbys(2);
    let _ = keeper.turn();
    // It is given up, and all of the old version is gone, in one moment.
    keeper.wanted = keeper.active.clone();
    keeper.world.observed.rollout = None;
    for n in 0..keeper.world.observed.instances.len() {
        let id = keeper.world.observed.instances[n].id.clone();
        if keeper.world.volumes[&keeper.world.volume_of(&id)].version == 15 {
            keeper.world.observed.instances[n].phase = Phase::Ended { cause: Ending::Killed(9) };
        }
    }
    for _ in 0..4 {
        let _ = keeper.turn();
        let primary = keeper.world.route().and_then(|route| route.primary.clone());
        assert!(primary.is_none_or(|id| !standbys.contains(&id)));
    }
    keeper.settle();
    assert_eq!(keeper.head_version(), 15);
}

#[test]
fn standbys_of_the_new_version_inherit_from_it_afterwards() {
    let mut keeper = Keeper::new(15, 2);
    keeper.begin(desired(2, 17, 256, 2));
    keeper.settle();
    let before = keeper.world.head.clone();
    let holder = keeper.world.route().and_then(|r| r.primary.clone()).expect("one serves");
    let index = keeper.world.observed.instances.iter().position(|i| i.id == holder);
    keeper.world.kill(index.expect("it is there"));
    keeper.settle();
    assert_ne!(keeper.world.head, before, "one of its standbys took over");
    assert_eq!(keeper.head_version(), 17);
}

#[test]
fn an_older_version_is_waited_for_in_vain_and_the_newer_one_serves() {
    let mut keeper = Keeper::new(17, 0);
    let wanted = desired(2, 15, 256, 0);
    keeper.world.observed.rollout = None;
    for _ in 0..50 {
        keeper.world.pass();
        assert_eq!(keeper.world.step(&wanted), Outcome::Progressing);
    }
    let route = keeper.world.route().expect("there is one");
    assert!(route.primary.is_some() && !route.holds);
    let why = plan(&wanted, &keeper.world.observed).1.waiting[0].why.clone();
    assert_eq!(why, Some(Reason::OtherVersion { data: 17, wanted: 15 }));
}

#[test]
fn a_loss_of_the_old_one_calls_the_change_off_and_it_is_recovered() {
    for replicas in 0..2 {
        let mut keeper = Keeper::new(15, replicas);
        keeper.begin(desired(2, 17, 256, replicas));
        while keeper.world.observed.instances.len() < 2 + replicas as usize {
            let _ = keeper.turn();
        }
        let holder = keeper.world.route().and_then(|r| r.primary.clone()).expect("one serves");
        let index = keeper.world.observed.instances.iter().position(|i| i.id == holder);
        keeper.world.kill(index.expect("it is there"));
        keeper.settle();
        assert!(matches!(&keeper.given_up[..], [Some(Reason::Worse { .. })]));
        assert_eq!((keeper.head_version(), keeper.active.number), (15, 1));
        let there = keeper.world.observed.instances.len();
        assert_eq!(there, 1 + replicas as usize, "what was to take over is gone");
    }
}

#[test]
fn past_the_seat_the_deadline_gives_nothing_up() {
    let mut keeper = Keeper::new(15, 1);
    keeper.begin(desired(2, 17, 256, 1));
    while keeper.head_version() == 15 {
        let _ = keeper.turn();
    }
    // What takes writes is lost at once, and the deadline is over.
    let now = keeper.world.observed.at;
    keeper.world.observed.rollout.as_mut().expect("it goes on").deadline = now;
    for n in 0..4 {
        keeper.world.kill(n);
    }
    keeper.settle();
    assert_eq!((keeper.head_version(), keeper.active.number), (17, 2));
}

#[derive(Debug, Clone)]
enum Fate {
    Nothing,
    Kill(usize),
    Hang(usize),
    Change(u64),
    Upgrade,
    Busy(bool),
    Late,
    Reboot,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        14 => Just(Fate::Nothing),
        2 => (0_usize..6).prop_map(Fate::Kill),
        1 => (0_usize..6).prop_map(Fate::Hang),
        1 => (2_u64..6).prop_map(Fate::Change),
        3 => Just(Fate::Upgrade),
        1 => any::<bool>().prop_map(Fate::Busy),
        1 => Just(Fate::Late),
        1 => Just(Fate::Reboot),
    ];
    prop::collection::vec(fate, 1..160)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_acknowledged_write_is_lost_between_versions(replicas in 0_u32..3, fates in fates()) {
        let mut keeper = Keeper::new(13, replicas);
        let mut number = 1;
        for fate in fates {
            let at = version(&keeper.active);
            let rolling = keeper.is_rolling();
            match fate {
                Fate::Kill(n) => keeper.world.kill(n),
                Fate::Hang(n) => keeper.world.hang(n),
                Fate::Change(memory) if !rolling => {
                    number += 1;
                    keeper.begin(desired(number, at, memory * 128, replicas));
                }
                Fate::Upgrade if !rolling => {
                    number += 1;
                    let to = match at { 13 => 15, _ => 17 };
                    keeper.begin(desired(number, to, 256, replicas));
                }
                Fate::Busy(busy) => keeper.world.busy = busy,
                Fate::Late => {
                    let now = keeper.world.observed.at;
                    keeper.world.observed.rollout.iter_mut().for_each(|r| r.deadline = now);
                }
                Fate::Reboot => {
                    keeper.world.observed.instances.clear();
                    keeper.world.observed.networks.clear();
                    keeper.world.observed.gates.clear();
                    keeper.world.observed.table = None;
                }
                Fate::Nothing | Fate::Change(_) | Fate::Upgrade => {}
            }
            let _ = keeper.turn();
        }
        keeper.settle();
        let head = keeper.world.head.clone().expect("there is data");
        prop_assert!(keeper.world.volumes[&head].position >= keeper.world.acknowledged[&0]);
        prop_assert_eq!(keeper.head_version(), version(&keeper.active));
    }
}
