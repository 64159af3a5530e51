//! Databases against a machine in memory that loses instances at any moment. What is acknowledged is
//! counted; the laws are that it is never lost and never acknowledged by two.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Action, Creation, Doomed, check, plan};
use crate::data::{
    Branch, BranchOrigin, DataOrigin, ObservedData, ObservedGate, ObservedVolume, Role, Said,
};
use crate::fixture::{database, generation, image, network, secret};
use crate::generation::Generation;
use crate::name::InstanceId;
use crate::observed::{Ending, Observed, ObservedInstance, Phase, Verdict};
use crate::plan::Outcome;
use crate::quantity::{Bytes, Millis, Timestamp};
use crate::route::DatabaseRoute;

/// What a volume holds, and whether writes go on into it.
#[derive(Debug, Clone, Copy, Default)]
struct Volume {
    position: u64,
    standby: bool,
    branch: u64,
    /// When another took its place as the head.
    left_at: Option<Timestamp>,
    /// Its branch ends in it.
    tip: bool,
}

struct World {
    observed: Observed,
    volumes: BTreeMap<InstanceId, Volume>,
    head: Option<InstanceId>,
    /// How far what was acknowledged in each branch goes.
    acknowledged: BTreeMap<u64, u64>,
    synchronous: bool,
    /// A transaction goes on, so that nothing settles.
    busy: bool,
    /// The standbys that the primary waited for when it was last there.
    quorum: BTreeSet<InstanceId>,
    /// Instances that answer nothing.
    hung: Vec<InstanceId>,
    /// For so many looks a new daemon has not heard of anybody.
    deaf: u32,
}

fn desired(number: u64, memory: u64, replicas: u32) -> Generation {
    let specs = vec![
        image("pg", "v1"),
        network("back", "10.0.0.0/24"),
        secret("orders"),
        database("orders").memory(Bytes::mib(memory)).replicas(replicas).spec(),
    ];
    generation(number, specs)
}

impl World {
    fn new(synchronous: bool) -> Self {
        Self {
            observed: Observed::default(),
            volumes: BTreeMap::new(),
            head: None,
            acknowledged: BTreeMap::new(),
            synchronous,
            busy: false,
            quorum: BTreeSet::new(),
            hung: Vec::new(),
            deaf: 0,
        }
    }

    /// Another daemon begins, which knows of what is there and has not asked anybody yet.
    fn restart(&mut self, deaf: u32) {
        self.deaf = deaf;
        self.quorum.clear();
        for instance in self.observed.instances.iter_mut().filter(|i| i.is_running()) {
            instance.health = Verdict::Starting { last: None };
            instance.data.as_mut().expect("a database's").said = None;
        }
    }

    fn route(&self) -> Option<&DatabaseRoute> {
        self.observed.table.as_ref()?.databases.first()
    }

    fn running(&self, id: &InstanceId) -> bool {
        let alive = |i: &&ObservedInstance| i.id == *id && i.is_running();
        self.observed.instances.iter().any(|i| alive(&i)) && !self.hung.contains(id)
    }

    fn volume_of(&self, id: &InstanceId) -> InstanceId {
        let instance = self.observed.instances.iter().find(|i| i.id == *id).expect("it is there");
        instance.data.as_ref().expect("a database's").volume.clone()
    }

    /// Clients write, standbys receive, and all of it is measured.
    fn pass(&mut self) {
        self.observed.at = self.observed.at.after(Millis(20));
        let now = self.observed.at;
        let primary = self.route().and_then(|route| route.primary.clone());
        let holds = self.route().is_some_and(|route| route.holds);
        if let Some(primary) = primary.clone().filter(|id| self.running(id)) {
            let volume = self.volume_of(&primary);
            assert!(!self.volumes[&volume].standby, "a standby is asked to write");
            assert_eq!(Some(&volume), self.head.as_ref(), "writes go past the head");
            let streaming = self.standbys().len();
            let goes_on = !holds || self.busy;
            let counts = !self.synchronous || streaming > 0;
            if goes_on && counts {
                self.volumes.get_mut(&volume).expect("it is there").position += 10;
                let Volume { branch, position, .. } = self.volumes[&volume];
                self.acknowledged.insert(branch, position);
            }
        }
        self.receive();
        let settled = (holds || primary.is_none()) && !self.busy;
        if let Some(route) = self.route() {
            let component = route.component.clone();
            let before = self.observed.gates.first().cloned();
            let held = holds || primary.is_none();
            let was_held = before.as_ref().and_then(|gate| gate.held_since);
            let released = before.as_ref().and_then(|gate| gate.released_at);
            let same = before.as_ref().and_then(|gate| gate.primary.as_ref()) == primary.as_ref();
            let gate = ObservedGate {
                component,
                primary: primary.clone(),
                settled_since: settled
                    .then(|| before.as_ref().and_then(|g| g.settled_since).unwrap_or(now)),
                held_since: held.then(|| was_held.unwrap_or(now)),
                released_at: if !held && was_held.is_some() && same { Some(now) } else { released },
                sessions: 1,
                busy: u32::from(self.busy),
            };
            self.observed.gates = vec![gate];
        }
        self.measure();
    }

    /// Standbys that follow the head.
    fn standbys(&self) -> Vec<InstanceId> {
        let Some(head) = &self.head else { return Vec::new() };
        let holder = self.observed.instances.iter().find(|i| {
            i.data.as_ref().is_some_and(|data| data.volume == *head) && self.running(&i.id)
        });
        if holder.is_none() {
            return Vec::new();
        }
        let instances = self.observed.instances.iter().filter(|i| self.running(&i.id));
        let branch = self.volumes[head].branch;
        let standby = |i: &&ObservedInstance| {
            let volume = self.volumes[&self.volume_of(&i.id)];
            volume.standby && volume.branch == branch
        };
        instances.filter(standby).map(|i| i.id.clone()).collect()
    }

    fn receive(&mut self) {
        let Some(head) = self.head.clone() else { return };
        let ahead = self.volumes[&head].position;
        for (n, id) in self.standbys().into_iter().enumerate() {
            let volume = self.volume_of(&id);
            let has = &mut self.volumes.get_mut(&volume).expect("it is there").position;
            // What does not have to be received at once is received late: a write counts when one
            // of them has it.
            let late = (*has + 8).max(ahead.saturating_sub(40));
            *has = if self.synchronous && n == 0 { ahead } else { ahead.min(late) };
        }
    }

    fn measure(&mut self) {
        if self.deaf > 0 {
            self.deaf -= 1;
        } else {
            self.hear();
        }
        self.measure_volumes();
    }

    /// What instances say of themselves.
    fn hear(&mut self) {
        let now = self.observed.at;
        let following = self.standbys();
        let head = self.head.clone();
        let holder = self
            .observed
            .instances
            .iter()
            .find(|i| i.is_running() && i.data.as_ref().map(|d| &d.volume) == head.as_ref());
        let holder = holder.map(|i| i.id.clone());
        if holder.as_ref().is_some_and(|holder| self.running(holder)) {
            self.quorum = following.iter().cloned().collect();
        } else if !self.quorum.iter().all(|id| self.running(id)) {
            self.quorum.clear();
        }
        for instance in &mut self.observed.instances {
            let data = instance.data.as_mut().expect("a database's");
            let volume = self.volumes[&data.volume];
            if !matches!(instance.phase, Phase::Running) {
                continue;
            }
            if self.hung.contains(&instance.id) {
                instance.health =
                    Verdict::Dead { since: now, reason: "it does not answer".to_owned() };
                continue;
            }
            if matches!(instance.health, Verdict::Starting { .. }) {
                instance.health = Verdict::Ready { since: now };
            }
            let follows = following.contains(&instance.id);
            let synchronous = self.synchronous && self.quorum.contains(&instance.id);
            data.said = Some(Said {
                at: now,
                role: if volume.standby { Role::Standby } else { Role::Primary },
                position: volume.position,
                follows: holder.clone().filter(|_| follows),
                synchronous,
            });
        }
    }

    /// What is on the disk.
    fn measure_volumes(&mut self) {
        let component = "database.orders".parse().expect("a component");
        let volume = |(id, volume): (&InstanceId, &Volume)| ObservedVolume {
            id: id.clone(),
            component: crate::name::ComponentId::clone(&component),
            generation: 1,
            version: 15,
            head: self.head.as_ref() == Some(id),
            branch: volume.branch,
            tip: volume.tip,
            left_at: volume.left_at,
            used: Bytes(0),
        };
        self.observed.volumes = self.volumes.iter().map(volume).collect();
    }

    /// One plan, checked, and its steps taken; what came of it.
    fn step(&mut self, desired: &Generation) -> Outcome {
        let (plan, report) = plan(desired, &self.observed);
        assert_eq!(check::check(desired, &self.observed, &plan), [], "{plan:#?}");
        for step in &plan.steps {
            self.take(desired, &step.action);
        }
        report.outcome
    }

    fn take(&mut self, desired: &Generation, action: &Action) {
        match action {
            Action::Create(Creation::Instance(creation)) => {
                let data = creation.data.as_ref().expect("a database's");
                let branch = data.branch;
                let volume = match &data.origin {
                    DataOrigin::Volume { volume } => {
                        let held =
                            self.observed.instances.iter().any(|i| {
                                i.data.as_ref().is_some_and(|data| data.volume == *volume)
                            });
                        assert!(!held, "{volume} is held twice");
                        volume.clone()
                    }
                    DataOrigin::Empty => {
                        assert_eq!(self.head, None, "data is begun anew beside what is there");
                        let volume = Volume { branch, ..Volume::default() };
                        self.volumes.insert(creation.id.clone(), volume);
                        creation.id.clone()
                    }
                    DataOrigin::Standby { of } => {
                        let from = self.volume_of(of);
                        assert_eq!(self.volumes[&from].branch, branch);
                        let copy = Volume { standby: true, ..self.volumes[&from] };
                        self.volumes.insert(creation.id.clone(), copy);
                        creation.id.clone()
                    }
                    DataOrigin::Branch { from: BranchOrigin::Volume { volume, .. } } => {
                        let Volume { position, .. } = self.volumes[volume];
                        assert!(!self.acknowledged.contains_key(&branch), "{branch} is there");
                        let copy = Volume { position, branch, ..Volume::default() };
                        self.volumes.insert(creation.id.clone(), copy);
                        creation.id.clone()
                    }
                    DataOrigin::Branch { from } => panic!("a branch of {from:?}"),
                };
                let at = self.observed.at;
                self.observed.instances.push(super::machine::made(
                    creation,
                    at,
                    Verdict::Starting { last: None },
                    Some(ObservedData { volume, branch, said: None }),
                ));
                self.observed.instances.sort_by(|a, b| a.id.cmp(&b.id));
            }
            Action::Create(Creation::Network(network)) => {
                self.observed.networks.push(super::machine::network(network));
            }
            Action::Route(table) => {
                let primary = table.databases.first().and_then(|route| route.primary.clone());
                if let Some(primary) = primary {
                    let volume = self.volume_of(&primary);
                    if self.head.as_ref() != Some(&volume) {
                        self.promote(desired, &volume);
                    }
                    self.volumes.get_mut(&volume).expect("it is there").standby = false;
                    self.head = Some(volume);
                }
                self.observed.table = Some((**table).clone());
            }
            Action::Drain(id) => {
                let at = self.observed.at;
                let instance = self.observed.instances.iter_mut().find(|i| i.id == *id);
                instance.expect("it is there").draining_since = Some(at);
            }
            Action::Destroy(Doomed::Instance(id, _)) => {
                let volume = self.volume_of(id);
                let kept = &self.volumes[&volume];
                if self.head.as_ref() != Some(&volume) && !kept.tip && kept.left_at.is_none() {
                    self.volumes.remove(&volume);
                }
                self.observed.instances.retain(|i| i.id != *id);
            }
            Action::Destroy(Doomed::Network(id)) => {
                self.observed.networks.retain(|n| n.id != *id);
            }
            Action::Destroy(Doomed::Data(..)) => {
                self.volumes.clear();
                self.head = None;
                self.acknowledged.clear();
            }
        }
    }

    /// Another volume is about to be the head.
    fn promote(&mut self, desired: &Generation, volume: &InstanceId) {
        let before = self.route().and_then(|route| route.primary.as_ref());
        assert_eq!(before, None, "promoted without a fence");
        let Volume { position, branch, .. } = self.volumes[volume];
        let (Some(head), now) = (self.head.clone(), self.observed.at) else { return };
        let old = self.volumes.get_mut(&head).expect("it is there");
        old.left_at = Some(now);
        if old.branch == branch {
            let acknowledged = self.acknowledged.get(&branch).copied().unwrap_or(0);
            assert!(position >= acknowledged, "{position} of {acknowledged} are promoted");
        } else {
            let component = "database.orders".parse().expect("a component");
            assert_eq!(desired.content.branch(&component).number, branch, "not asked for");
            old.tip = true;
            self.acknowledged.insert(branch, position);
        }
        self.volumes.get_mut(volume).expect("it is there").tip = false;
    }

    /// The n-th of the instances that run, if there is one, ends.
    fn kill(&mut self, n: usize) {
        let running: Vec<InstanceId> = self
            .observed
            .instances
            .iter()
            .filter(|i| i.is_running())
            .map(|i| i.id.clone())
            .collect();
        let Some(id) = running.get(n % running.len().max(1)) else { return };
        let instance = self.observed.instances.iter_mut().find(|i| i.id == *id);
        let cause = Ending::Killed(9);
        instance.expect("it is there").phase = Phase::Ended { cause };
    }

    fn hang(&mut self, n: usize) {
        let count = self.observed.instances.len();
        if let Some(instance) = self.observed.instances.get(n % count.max(1)) {
            self.hung.push(instance.id.clone());
        }
    }

    /// The n-th of the states that it can be gone back to.
    fn back(&self, n: usize) -> Option<Branch> {
        let kept: Vec<_> =
            self.volumes.iter().filter(|(_, v)| v.tip || v.left_at.is_some()).collect();
        let (id, volume) = kept.get(n % kept.len().max(1))?;
        if volume.tip {
            let from = BranchOrigin::Beginning;
            return Some(Branch { number: volume.branch, from });
        }
        let from = BranchOrigin::Volume { volume: (*id).clone(), generation: 1 };
        Some(Branch::new(from))
    }

    fn converge(&mut self, desired: &Generation) {
        self.busy = false;
        for _ in 0..2_000 {
            self.pass();
            if self.step(desired) == Outcome::Converged {
                return;
            }
        }
        let report = plan(desired, &self.observed).1;
        panic!("no end: {report:#?} {:#?} {:#?}", self.observed.gates, self.observed.instances);
    }
}

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
    world.restart(3);
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
    world.restart(3);
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
fn another_major_version_waits_and_the_old_one_serves() {
    let mut world = World::new(false);
    world.converge(&desired(1, 256, 0));
    let mut wanted = desired(2, 512, 0);
    let specs = vec![
        image("pg", "v2"),
        network("back", "10.0.0.0/24"),
        secret("orders"),
        database("orders").version(17).spec(),
    ];
    wanted.content = generation(2, specs).content;
    for _ in 0..50 {
        world.pass();
        assert_eq!(world.step(&wanted), Outcome::Progressing);
    }
    assert!(world.route().is_some_and(|route| route.primary.is_some() && !route.holds));
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
    world.converge(&Generation { number: 5, content: again, ..nothing });
    let head = world.head.clone().unwrap();
    assert_eq!(world.volumes[&head].branch, 4);
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
    Restart(u32),
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
        1 => (0_u32..4).prop_map(Fate::Restart),
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
                Fate::Restart(deaf) => world.restart(deaf),
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
