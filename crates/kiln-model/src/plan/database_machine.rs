//! A machine in memory that has databases: clients write to it, standbys receive, and what is
//! acknowledged is counted. It loses and hangs instances when it is told to.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Creation, DataCreation, Doomed, InstanceCreation, check, plan};
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
pub(super) struct Volume {
    /// How many bytes of what clients wrote are in it.
    pub(super) position: u64,
    standby: bool,
    /// The major version that made it.
    pub(super) version: u32,
    /// The generation that it was made for.
    generation: u64,
    /// Copies of one log have one lineage, and say their position in terms of it.
    lineage: u64,
    /// It takes the data over from another lineage.
    upgrades: bool,
    pub(super) branch: u64,
    /// When another took its place as the head.
    pub(super) left_at: Option<Timestamp>,
    /// Its branch ends in it.
    pub(super) tip: bool,
}

impl Volume {
    /// What the log of a lineage has before anything of clients'.
    fn offset(lineage: u64) -> u64 {
        lineage * 1_000_003
    }
}

pub(super) struct World {
    pub(super) observed: Observed,
    pub(super) volumes: BTreeMap<InstanceId, Volume>,
    pub(super) head: Option<InstanceId>,
    /// How far what was acknowledged in each branch goes.
    pub(super) acknowledged: BTreeMap<u64, u64>,
    pub(super) synchronous: bool,
    /// A transaction goes on, so that nothing settles.
    pub(super) busy: bool,
    /// The standbys that the primary waited for when it was last there.
    quorum: BTreeSet<InstanceId>,
    /// Instances that answer nothing.
    pub(super) hung: Vec<InstanceId>,
    /// For so many looks a new daemon has not heard of anybody.
    deaf: u32,
}

pub(super) fn desired(number: u64, memory: u64, replicas: u32) -> Generation {
    let specs = vec![
        image("pg", "v1"),
        network("back", "10.0.0.0/24"),
        secret("orders"),
        database("orders").memory(Bytes::mib(memory)).replicas(replicas).spec(),
    ];
    generation(number, specs)
}

impl World {
    pub(super) fn new(synchronous: bool) -> Self {
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
    pub(super) fn begin_anew(&mut self, deaf: u32) {
        self.deaf = deaf;
        self.quorum.clear();
        for instance in self.observed.instances.iter_mut().filter(|i| i.is_running()) {
            instance.health = Verdict::Starting { last: None };
            instance.data.as_mut().expect("a database's").said = None;
        }
    }

    pub(super) fn route(&self) -> Option<&DatabaseRoute> {
        self.observed.table.as_ref()?.databases.first()
    }

    pub(super) fn running(&self, id: &InstanceId) -> bool {
        let alive = |i: &&ObservedInstance| i.id == *id && i.is_running();
        self.observed.instances.iter().any(|i| alive(&i)) && !self.hung.contains(id)
    }

    pub(super) fn volume_of(&self, id: &InstanceId) -> InstanceId {
        let instance = self.observed.instances.iter().find(|i| i.id == *id).expect("it is there");
        instance.data.as_ref().expect("a database's").volume.clone()
    }

    /// Clients write, standbys receive, and all of it is measured.
    pub(super) fn pass(&mut self) {
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

    /// The running instance that holds a volume.
    fn holder(&self, volume: &InstanceId) -> Option<InstanceId> {
        let holds = |i: &&ObservedInstance| {
            i.data.as_ref().is_some_and(|data| data.volume == *volume) && self.running(&i.id)
        };
        self.observed.instances.iter().find(holds).map(|i| i.id.clone())
    }

    /// Who receives from an instance: what takes over from it to another version comes first, as
    /// that is the one by which a write may count to the planner's disadvantage.
    fn followers(&self, of: &InstanceId) -> Vec<InstanceId> {
        let from = (self.volume_of(of), self.volumes[&self.volume_of(of)]);
        let follows = |i: &&ObservedInstance| {
            let volume = self.volumes[&self.volume_of(&i.id)];
            let same = volume.branch == from.1.branch;
            let rows = volume.upgrades && same && self.head.as_ref() == Some(&from.0);
            let log = volume.standby && !volume.upgrades && volume.lineage == from.1.lineage;
            i.id != *of && self.running(&i.id) && (rows || log)
        };
        let mut all: Vec<InstanceId> =
            self.observed.instances.iter().filter(follows).map(|i| i.id.clone()).collect();
        all.sort_by_key(|id| !self.volumes[&self.volume_of(id)].upgrades);
        all
    }

    /// Those that receive from the one that holds the head.
    fn standbys(&self) -> Vec<InstanceId> {
        let holder = self.head.as_ref().and_then(|head| self.holder(head));
        holder.map(|holder| self.followers(&holder)).unwrap_or_default()
    }

    fn receive(&mut self) {
        let Some(head) = self.head.clone() else { return };
        let ahead = self.volumes[&head].position;
        for (n, id) in self.standbys().into_iter().enumerate() {
            // What does not have to be received at once is received late: a write counts when one
            // of them has it.
            self.receive_from(&id, ahead, self.synchronous && n == 0);
            if self.volumes[&self.volume_of(&id)].upgrades {
                let ahead = self.volumes[&self.volume_of(&id)].position;
                for id in self.followers(&id) {
                    self.receive_from(&id, ahead, false);
                }
            }
        }
    }

    fn receive_from(&mut self, id: &InstanceId, ahead: u64, at_once: bool) {
        let volume = self.volume_of(id);
        let has = &mut self.volumes.get_mut(&volume).expect("it is there").position;
        let late = (*has + 8).max(ahead.saturating_sub(40));
        *has = if at_once { ahead } else { ahead.min(late) };
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
        let lineages: BTreeMap<InstanceId, u64> = self
            .observed
            .instances
            .iter()
            .map(|i| (i.id.clone(), self.volumes[&self.volume_of(&i.id)].lineage))
            .collect();
        // Those that follow one that takes over, which says the same of them as every primary.
        let takers = following.iter().filter(|id| self.volumes[&self.volume_of(id)].upgrades);
        let aside: BTreeMap<InstanceId, InstanceId> = takers
            .flat_map(|taker| self.followers(taker).into_iter().map(|id| (id, taker.clone())))
            .collect();
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
            let follows = following.contains(&instance.id).then(|| holder.clone()).flatten();
            let beside = aside.get(&instance.id).cloned();
            let counts = self.quorum.contains(&instance.id) || beside.is_some();
            // One that takes over says how far it is in terms of the log that it receives from.
            let log = holder.as_ref().and_then(|id| lineages.get(id)).filter(|_| volume.upgrades);
            let log = log.copied().unwrap_or(volume.lineage);
            data.said = Some(Said {
                at: now,
                role: if volume.standby { Role::Standby } else { Role::Primary },
                position: volume.position + Volume::offset(log),
                follows: follows.or(beside),
                synchronous: self.synchronous && counts,
            });
        }
    }

    /// What is on the disk.
    fn measure_volumes(&mut self) {
        let component = "database.orders".parse().expect("a component");
        let volume = |(id, volume): (&InstanceId, &Volume)| ObservedVolume {
            id: id.clone(),
            component: crate::name::ComponentId::clone(&component),
            generation: volume.generation,
            version: volume.version,
            head: self.head.as_ref() == Some(id),
            branch: volume.branch,
            tip: volume.tip,
            left_at: volume.left_at,
            used: Bytes(0),
        };
        self.observed.volumes = self.volumes.iter().map(volume).collect();
    }

    /// One plan, checked, and its steps taken; what came of it.
    pub(super) fn step(&mut self, desired: &Generation) -> Outcome {
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
                self.make(creation);
            }
            Action::Create(Creation::Network(network)) => {
                self.observed.networks.push(super::machine::network(network));
            }
            Action::Route(table) => {
                let primary = table.databases.first().and_then(|route| route.primary.clone());
                if let Some(primary) = primary {
                    let volume = self.volume_of(&primary);
                    if self.volumes[&volume].upgrades && !self.completes(&primary) {
                        return;
                    }
                    if self.head.as_ref() != Some(&volume) {
                        self.promote(desired, &volume);
                    }
                    let promoted = self.volumes.get_mut(&volume).expect("it is there");
                    (promoted.standby, promoted.upgrades) = (false, false);
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

    /// Makes an instance, which is ready when it is measured next.
    fn make(&mut self, creation: &InstanceCreation) {
        let data = creation.data.as_ref().expect("a database's");
        let volume = self.fill(creation, data);
        let at = self.observed.at;
        let (branch, origin) = (data.branch, Some(data.origin.clone()));
        let health = Verdict::Starting { last: None };
        let data = Some(ObservedData { volume, branch, origin, said: None });
        self.observed.instances.push(super::machine::made(creation, at, health, data));
        self.observed.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// What an instance begins with; the volume that it holds.
    fn fill(&mut self, creation: &InstanceCreation, data: &DataCreation) -> InstanceId {
        let (version, branch) = (data.identity.version, data.branch);
        let generation = creation.generation;
        let new = Volume { version, generation, branch, ..Volume::default() };
        let lineage = self.volumes.values().map(|v| v.lineage).max().unwrap_or(0) + 1;
        let volume = match &data.origin {
            DataOrigin::Volume { volume } => {
                assert_eq!(self.volumes[volume].version, version, "served by another");
                let held = self
                    .observed
                    .instances
                    .iter()
                    .any(|i| i.data.as_ref().is_some_and(|data| data.volume == *volume));
                assert!(!held, "{volume} is held twice");
                return volume.clone();
            }
            DataOrigin::Empty => {
                assert_eq!(self.head, None, "data is begun anew beside what is there");
                Volume { lineage, ..new }
            }
            DataOrigin::Standby { of } => {
                let from = self.volumes[&self.volume_of(of)];
                assert_eq!(from.branch, branch);
                assert_eq!(from.version, version, "a copy for another version");
                let mut all = self.observed.instances.iter();
                assert!(all.any(|i| i.id == *of && i.is_ready()), "{of} is not ready");
                let (position, lineage) = (from.position, from.lineage);
                Volume { standby: true, position, lineage, ..new }
            }
            DataOrigin::Upgrade { of } => {
                let from = self.volumes[&self.volume_of(of)];
                assert!(from.version < version, "from {} to {version}", from.version);
                let position = from.position / 2;
                let (standby, upgrades) = (true, true);
                Volume { position, standby, lineage, upgrades, ..new }
            }
            DataOrigin::Branch { from: BranchOrigin::Volume { volume, .. } } => {
                let Volume { position, version: before, .. } = self.volumes[volume];
                assert!(!self.acknowledged.contains_key(&branch), "{branch} is there");
                assert_eq!(before, version, "a branch of another version");
                Volume { position, lineage, ..new }
            }
            DataOrigin::Branch { from } => panic!("a branch of {from:?}"),
        };
        self.volumes.insert(creation.id.clone(), volume);
        creation.id.clone()
    }

    /// Whether one that takes over from another version can take writes: the one before tells
    /// what is no row, and with `synchronous` another has all that this one has.
    fn completes(&mut self, taker: &InstanceId) -> bool {
        let source = self.head.as_ref().and_then(|head| self.holder(head));
        if source.is_none() {
            return false;
        }
        if !self.synchronous {
            return true;
        }
        let position = self.volumes[&self.volume_of(taker)].position;
        let first = self.followers(taker).into_iter().next();
        first.inspect(|id| self.receive_from(id, position, true)).is_some()
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
    pub(super) fn kill(&mut self, n: usize) {
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

    pub(super) fn hang(&mut self, n: usize) {
        let count = self.observed.instances.len();
        if let Some(instance) = self.observed.instances.get(n % count.max(1)) {
            self.hung.push(instance.id.clone());
        }
    }

    /// The n-th of the states that it can be gone back to.
    pub(super) fn back(&self, n: usize) -> Option<Branch> {
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

    pub(super) fn converge(&mut self, desired: &Generation) {
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
