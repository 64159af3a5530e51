//! An independent checker: what must be true of every plan, whatever decided it.
//!
//! It shares no code with the planner, so that an error there is not repeated here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use crate::data::{BranchOrigin, DataOrigin};
use crate::generation::Generation;
use crate::name::{ComponentId, InstanceId};
use crate::observed::{Observed, ObservedInstance, Verdict};
use crate::route::{Protocol, RouteTable};

use super::{Action, Creation, Doomed, Evidence, InstanceCreation, Plan, Step};

/// A broken invariant of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A step waits for one that does not come before it.
    #[error("step {step} waits for step {on}, which is not before it")]
    Order {
        /// The step.
        step: usize,
        /// The one it waits for.
        on: usize,
    },
    /// Two things with one id, or one that exists already.
    #[error("{0} is created although it exists")]
    Doubled(InstanceId),
    /// Two instances in one network with one address.
    #[error("{address} in {network} is given to {instance} although it is taken")]
    AddressTaken {
        /// The network instance.
        network: InstanceId,
        /// The address.
        address: Ipv4Addr,
        /// The second to have it.
        instance: InstanceId,
    },
    /// An address outside the network's upper half.
    #[error("{instance} is given {address}, which is not for instances")]
    AddressOutside {
        /// Whose.
        instance: InstanceId,
        /// Which.
        address: Ipv4Addr,
    },
    /// Two listeners on one address.
    #[error("two endpoints listen on {0}")]
    ListenerTwice(SocketAddr),
    /// Something is used that does not exist when it is.
    #[error("step {step} uses {used}, which does not exist then")]
    Dangling {
        /// The step.
        step: usize,
        /// What it uses.
        used: InstanceId,
    },
    /// An instance in rotation that is not known to be ready.
    #[error("{0} is put into rotation and is not ready")]
    NotReady(InstanceId),
    /// Something is drained or destroyed that still takes traffic.
    #[error("step {step} ends {instance}, which is still in rotation")]
    StillServing {
        /// The step.
        step: usize,
        /// The instance.
        instance: InstanceId,
    },
    /// A ready instance is destroyed without having drained.
    #[error("{0} is destroyed before it has drained")]
    NotDrained(InstanceId),
    /// Evidence is kept of what has not drifted, or against the policy, or is not kept with both.
    #[error("evidence of {0} is kept, or is not, against its state and policy")]
    WrongEvidence(InstanceId),
    /// A network is destroyed that has instances.
    #[error("{0} is destroyed with instances in it")]
    Inhabited(InstanceId),
    /// Something is created that the generation does not name.
    #[error("{0} is created and the generation does not name it")]
    NotDesired(ComponentId),
    /// Writes go from one instance to another with nobody between.
    #[error("writes of {0} go over without a fence")]
    NotFenced(ComponentId),
    /// A volume that an instance holds, or is about to, is given to another.
    #[error("{volume} is given to {instance} although it is held")]
    HeldTwice {
        /// The volume.
        volume: InstanceId,
        /// The second to have it.
        instance: InstanceId,
    },
    /// Data is removed that nobody has asked to remove, or that is in use.
    #[error("the data of {0} is removed and must not be")]
    DataRemoved(ComponentId),
    /// A table that is not newer than the present one.
    #[error("the table's epoch {0} is not greater than the present one's")]
    OldEpoch(u64),
}

/// Every broken invariant of `plan`.
pub fn check(desired: &Generation, observed: &Observed, plan: &Plan) -> Vec<Violation> {
    let mut checker = Checker::new(desired, observed, plan);
    for (index, step) in plan.steps.iter().enumerate() {
        checker.step(index, step);
    }
    checker.violations
}

struct Checker<'a> {
    desired: &'a Generation,
    observed: &'a Observed,
    plan: &'a Plan,
    /// What exists: id, and the step that makes it.
    exists: BTreeMap<&'a InstanceId, Option<usize>>,
    addresses: BTreeSet<(&'a InstanceId, Ipv4Addr)>,
    /// Volumes that are given to somebody.
    volumes: BTreeSet<InstanceId>,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn new(desired: &'a Generation, observed: &'a Observed, plan: &'a Plan) -> Self {
        let networks = observed.networks.iter().map(|n| (&n.id, None));
        let instances = observed.instances.iter().map(|i| (&i.id, None));
        Self {
            desired,
            observed,
            plan,
            exists: networks.chain(instances).collect(),
            addresses: observed.instances.iter().map(|i| (&i.network, i.address)).collect(),
            volumes: BTreeSet::new(),
            violations: Vec::new(),
        }
    }

    fn step(&mut self, index: usize, step: &'a Step) {
        for on in step.after.iter().filter(|on| **on >= index) {
            self.violations.push(Violation::Order { step: index, on: *on });
        }
        match &step.action {
            Action::Create(Creation::Network(network)) => {
                self.created(index, &network.id, &network.component, &network.digest);
            }
            Action::Create(Creation::Instance(instance)) => self.instance(index, step, instance),
            Action::Route(table) => self.table(index, step, table),
            Action::Drain(id) => self.ended(index, step, id, false),
            Action::Destroy(Doomed::Instance(id, evidence)) => {
                self.ended(index, step, id, true);
                self.evidence(id, *evidence);
            }
            Action::Destroy(Doomed::Network(id)) => {
                let inhabited = self.observed.instances.iter().any(|i| i.network == *id);
                let routed = self
                    .table_at(step)
                    .is_some_and(|t| t.networks.iter().any(|n| n.network == *id));
                if inhabited || routed {
                    self.violations.push(Violation::Inhabited(id.clone()));
                }
            }
            Action::Destroy(Doomed::Data(_, id)) => {
                let content = &self.desired.content;
                let asked = content.data.get(id).is_some_and(|it| {
                    it.from == BranchOrigin::Discarded && it.number == self.desired.number
                });
                let used = content.components.contains_key(id)
                    || self.observed.instances.iter().any(|i| i.component == *id);
                if used || !asked {
                    self.violations.push(Violation::DataRemoved(id.clone()));
                }
            }
        }
    }

    fn created(
        &mut self,
        index: usize,
        id: &'a InstanceId,
        component: &ComponentId,
        digest: &crate::digest::Digest,
    ) {
        if self.exists.insert(id, Some(index)).is_some() {
            self.violations.push(Violation::Doubled(id.clone()));
        }
        let named = self.desired.content.components.get(component);
        if named.is_none_or(|c| c.digest != *digest) {
            self.violations.push(Violation::NotDesired(component.clone()));
        }
    }

    fn instance(&mut self, index: usize, step: &Step, instance: &'a InstanceCreation) {
        self.created(index, &instance.id, &instance.component, &instance.digest);
        self.uses(index, step, &instance.network);
        self.volume(instance);
        if !self.addresses.insert((&instance.network, instance.address)) {
            self.violations.push(Violation::AddressTaken {
                network: instance.network.clone(),
                address: instance.address,
                instance: instance.id.clone(),
            });
        }
        let identity = &instance.network_identity;
        let offset = u32::from(instance.address).wrapping_sub(u32::from(identity.cidr.network()));
        if offset < identity.size() / 2 || offset >= identity.size() - 1 {
            self.violations.push(Violation::AddressOutside {
                instance: instance.id.clone(),
                address: instance.address,
            });
        }
    }

    /// `id` exists when `step` is taken.
    fn uses(&mut self, index: usize, step: &Step, id: &InstanceId) {
        let there = match self.exists.get(id) {
            None => false,
            Some(None) => true,
            Some(Some(made_by)) => self.comes_before(*made_by, step),
        };
        if !there {
            self.violations.push(Violation::Dangling { step: index, used: id.clone() });
        }
    }

    /// Whether step `earlier` has surely been taken when `step` is.
    fn comes_before(&self, earlier: usize, step: &Step) -> bool {
        let mut reached: BTreeSet<usize> = step.after.iter().copied().collect();
        while let Some(index) = reached.pop_last() {
            if index == earlier {
                return true;
            }
            if let Some(before) = self.plan.steps.get(index) {
                reached.extend(before.after.iter().filter(|on| **on < index));
            }
        }
        false
    }

    fn table(&mut self, index: usize, step: &Step, table: &'a RouteTable) {
        let present = self.observed.table.as_ref().map_or(0, |t| t.epoch);
        if table.epoch <= present {
            self.violations.push(Violation::OldEpoch(table.epoch));
        }
        let mut listeners = BTreeSet::new();
        for endpoint in table.endpoints.iter().filter(|e| e.listen.port() != 0) {
            let datagrams = endpoint.protocol == Protocol::Udp;
            if !listeners.insert((endpoint.listen, datagrams)) {
                self.violations.push(Violation::ListenerTwice(endpoint.listen));
            }
        }
        for network in &table.networks {
            self.uses(index, step, &network.network);
        }
        self.fenced(table);
        let ready: BTreeSet<&InstanceId> =
            self.observed.instances.iter().filter(|i| i.is_ready()).map(|i| &i.id).collect();
        let rotation: BTreeSet<&InstanceId> = table.in_rotation().collect();
        let unready = rotation.difference(&ready).filter(|id| !self.stays(id, table));
        let unready: Vec<Violation> =
            unready.map(|id| Violation::NotReady((*id).clone())).collect();
        self.violations.extend(unready);
    }

    /// Whether an instance of a database goes on taking the writes: one that runs, and whose end
    /// nobody knows of, is not to be fenced because it was not heard of yet.
    fn stays(&self, id: &InstanceId, table: &RouteTable) -> bool {
        let primary = |table: &RouteTable| {
            table.databases.iter().any(|route| route.primary.as_ref() == Some(id))
        };
        let unheard = |i: &ObservedInstance| {
            i.id == *id && i.is_running() && matches!(i.health, Verdict::Starting { .. })
        };
        primary(table)
            && self.observed.table.as_ref().is_some_and(primary)
            && self.observed.instances.iter().any(unheard)
    }

    /// Whoever takes writes next does so after a table that named nobody.
    fn fenced(&mut self, table: &RouteTable) {
        let before = self.observed.table.iter().flat_map(|table| &table.databases);
        let before: BTreeMap<&ComponentId, &InstanceId> =
            before.filter_map(|route| Some((&route.component, route.primary.as_ref()?))).collect();
        for route in &table.databases {
            let old = before.get(&route.component);
            if old.zip(route.primary.as_ref()).is_some_and(|(old, new)| *old != new) {
                self.violations.push(Violation::NotFenced(route.component.clone()));
            }
        }
    }

    /// A volume has one holder.
    fn volume(&mut self, instance: &InstanceCreation) {
        let Some(DataOrigin::Volume { volume }) = instance.data.as_ref().map(|d| &d.origin) else {
            return;
        };
        let mut held = self.observed.instances.iter().filter_map(|i| i.data.as_ref());
        if held.any(|data| data.volume == *volume) || !self.volumes.insert(volume.clone()) {
            let (volume, instance) = (volume.clone(), instance.id.clone());
            self.violations.push(Violation::HeldTwice { volume, instance });
        }
    }

    /// The table that is in force when `step` is taken.
    fn table_at(&self, step: &Step) -> Option<&'a RouteTable> {
        let before = step.after.iter().filter_map(|i| self.plan.steps.get(*i));
        let routed = before.filter_map(|s| match &s.action {
            Action::Route(table) => Some(&**table),
            _ => None,
        });
        routed.max_by_key(|t| t.epoch).or(self.observed.table.as_ref())
    }

    fn evidence(&mut self, id: &InstanceId, evidence: Evidence) {
        let Some(instance) = self.observed.instances.iter().find(|i| i.id == *id) else { return };
        let declared = self.desired.content.components.get(&instance.component);
        let wanted = declared
            .and_then(|component| component.spec.as_server())
            .is_some_and(|server| server.policy.quarantine);
        if (evidence == Evidence::Kept) != (wanted && !instance.drift.is_empty()) {
            self.violations.push(Violation::WrongEvidence(id.clone()));
        }
    }

    fn ended(&mut self, index: usize, step: &Step, id: &InstanceId, destroyed: bool) {
        let Some(instance) = self.observed.instances.iter().find(|i| i.id == *id) else {
            self.violations.push(Violation::Dangling { step: index, used: id.clone() });
            return;
        };
        if self.table_at(step).is_some_and(|t| t.in_rotation().any(|i| i == id)) {
            self.violations.push(Violation::StillServing { step: index, instance: id.clone() });
        }
        let now = self.observed.at;
        let drained = instance.draining_since.is_some_and(|since| {
            instance.in_flight == 0
                || instance.is_stopped()
                || now.since(since) >= super::DRAIN_BOUND
        });
        if destroyed && instance.is_running() && !drained {
            self.violations.push(Violation::NotDrained(id.clone()));
        }
    }
}
