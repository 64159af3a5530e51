//! The one function that decides.
//!
//! [`plan`] compares a generation with what was observed and says which steps lead from one to
//! the other. Apply, rollback, healing, scaling, drift repair and recovery after a crash are
//! this call with different arguments. It is pure and total: it reads nothing but its
//! arguments, and every pair of arguments has an answer.
//!
//! A plan holds only steps that need no further decision. What has to be waited for (an
//! instance that is not ready, one that still answers requests) is in the [`Report`]; the
//! caller observes and plans again until no step is left.
//!
//! There is no step that changes an instance. [`Action`] has four members, and an instance
//! that exists can be routed to, drained and destroyed, nothing else.

pub mod check;
mod database;
mod fleet;
mod networks;
mod report;
mod stage;
mod table;
mod trial;

#[cfg(test)]
mod ailing;
#[cfg(test)]
mod database_machine;
#[cfg(test)]
mod database_tests;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod major_tests;
#[cfg(test)]
mod rollout_tests;
#[cfg(test)]
mod tampered;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::DataOrigin;
use crate::digest::Digest;
use crate::generation::Generation;
use crate::name::{ComponentId, InstanceId, StackName};
use crate::observed::Observed;
use crate::quantity::{Millis, Timestamp};
use crate::route::RouteTable;
use crate::spec::database::DatabaseIdentity;
use crate::spec::network::NetworkIdentity;
use crate::spec::server::Server;
use crate::trust::Demands;
use std::net::Ipv4Addr;

pub use report::{Milestone, Outcome, Reason, Report, Waiting};

use fleet::Fleets;
use networks::Networks;

/// How long a draining instance may go on answering what it has begun.
pub const DRAIN_BOUND: Millis = Millis::seconds(10);

/// Steps, and which of them come before which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps; each only waits for steps before it.
    pub steps: Vec<Step>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// The steps, by index, that must have succeeded before.
    pub after: Vec<usize>,
    /// Why.
    pub because: Reason,
}

/// What a step does. There is no fifth thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Something new comes to be.
    Create(Creation),
    /// The gateway's table for the stack is replaced whole.
    Route(Arc<RouteTable>),
    /// An instance, already out of rotation, begins to finish what it has begun.
    Drain(InstanceId),
    /// Something is ended and all that is left of it is removed.
    Destroy(Doomed),
}

/// What can be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Creation {
    /// A network.
    Network(Arc<NetworkCreation>),
    /// A server's instance.
    Instance(Arc<InstanceCreation>),
}

/// What can be destroyed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doomed {
    /// A network, and whatever is left of it.
    Network(InstanceId),
    /// A server's instance, and whatever is left of it.
    Instance(InstanceId, Evidence),
    /// All the data of a database, for good. It is asked for by a person, and by nothing else.
    Data(StackName, ComponentId),
}

/// What is kept of an instance that is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Nothing.
    None,
    /// What it is at its end: it is taken off the network, frozen, and saved before it is gone.
    Kept,
}

/// A network to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkCreation {
    /// Its id.
    pub id: InstanceId,
    /// The stack that it belongs to.
    pub stack: StackName,
    /// The component that it is an instance of.
    pub component: ComponentId,
    /// The component's digest.
    pub digest: Digest,
    /// The generation that it is made for.
    pub generation: u64,
    /// What it is.
    pub identity: NetworkIdentity,
}

/// A server's instance to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceCreation {
    /// Its id.
    pub id: InstanceId,
    /// The stack that it belongs to.
    pub stack: StackName,
    /// The component that it is an instance of.
    pub component: ComponentId,
    /// The component's digest.
    pub digest: Digest,
    /// The generation that it is made for.
    pub generation: u64,
    /// The network instance that it is in.
    pub network: InstanceId,
    /// What that network is.
    pub network_identity: NetworkIdentity,
    /// Its address there.
    pub address: Ipv4Addr,
    /// The digest of the image's content.
    pub image: Digest,
    /// What the stack demands of it.
    pub demands: Demands,
    /// What it is, and how it is handled at first.
    pub server: Server,
    /// What it is besides, where it is a database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataCreation>,
}

/// What makes an instance one of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataCreation {
    /// The database.
    pub identity: DatabaseIdentity,
    /// What it begins with.
    pub origin: DataOrigin,
    /// The number of the branch that it goes on with.
    #[serde(default)]
    pub branch: u64,
}

/// Decides what leads from `observed` to `desired`.
pub fn plan(desired: &Generation, observed: &Observed) -> (Plan, Report) {
    let networks = Networks::decide(desired, observed);
    let mut fleets = Fleets::decide(desired, observed, &networks);
    let watch = trial::watch(desired, observed);
    let proved =
        observed.rollout.is_none() || (fleets.all_through() && watch == trial::Watch::Over);
    let serving = table::Serving::decide(desired, observed, &fleets, proved);
    fleets.retire_removed(desired, observed, &serving, proved);
    let doomed_networks = networks.doomed(observed, proved);
    let table = table::build(desired, observed, &fleets, &networks, &doomed_networks, &serving);
    let steps = Steps::assemble(desired, observed, &networks, &fleets, doomed_networks, table);
    let report = report::report(desired, observed, &networks, &fleets, &watch, &steps);
    (Plan { steps }, report)
}

/// The id of something new: distinct for each instant, component and ordinal, and chosen
/// without a random number so that planning is a function of its arguments.
fn fresh_id(desired: &Generation, observed: &Observed, id: &ComponentId, n: usize) -> InstanceId {
    // Two plans of one instant differ in what they see.
    let (at, known) = (observed.at.0, observed.instances.len() + observed.networks.len());
    let epoch = observed.table.as_ref().map_or(0, |t| t.epoch);
    let (stack, number) = (&desired.stack, desired.number);
    let text = format!("{stack}\n{number}\n{id}\n{n}\n{at}\n{known}\n{epoch}");
    InstanceId::derive(id, &Digest::of(text.as_bytes()))
}

/// Puts decisions into steps with their order.
struct Steps;

impl Steps {
    fn assemble(
        desired: &Generation,
        observed: &Observed,
        networks: &Networks,
        fleets: &Fleets,
        doomed_networks: BTreeSet<InstanceId>,
        table: RouteTable,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut network_step: BTreeMap<&InstanceId, usize> = BTreeMap::new();
        for creation in networks.creations() {
            network_step.insert(&creation.id, steps.len());
            steps.push(Step {
                action: Action::Create(Creation::Network(creation.clone())),
                after: Vec::new(),
                because: networks.reason(&creation.component),
            });
        }
        let route = route_step(observed, table, &network_step);
        let routed: Vec<usize> = route.iter().map(|_| steps.len()).collect();
        steps.extend(route);
        for (creation, because) in fleets.creations() {
            let mut after = routed.clone();
            after.extend(network_step.get(&creation.network));
            let action = Action::Create(Creation::Instance(creation.clone()));
            steps.push(Step { action, after, because: because.clone() });
        }
        for (id, because) in fleets.to_drain() {
            let action = Action::Drain(id.clone());
            steps.push(Step { action, after: routed.clone(), because: because.clone() });
        }
        for (id, (evidence, because)) in fleets.to_destroy() {
            let action = Action::Destroy(Doomed::Instance(id.clone(), *evidence));
            steps.push(Step { action, after: routed.clone(), because: because.clone() });
        }
        for id in doomed_networks {
            let action = Action::Destroy(Doomed::Network(id));
            steps.push(Step { action, after: routed.clone(), because: Reason::NotWanted });
        }
        for id in database::discarded(desired, observed) {
            let action = Action::Destroy(Doomed::Data(desired.stack.clone(), id.clone()));
            steps.push(Step { action, after: routed.clone(), because: Reason::NotWanted });
        }
        steps
    }
}

/// The step that replaces the gateway's table, if it must be replaced.
fn route_step(
    observed: &Observed,
    table: RouteTable,
    network_step: &BTreeMap<&InstanceId, usize>,
) -> Option<Step> {
    let same = match &observed.table {
        Some(present) => present.routes_as(&table),
        None => table.is_empty(),
    };
    if same {
        return None;
    }
    let after = network_step.values().copied().collect();
    Some(Step { action: Action::Route(Arc::new(table)), after, because: Reason::Routing })
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// The earliest of some instants that lie after `now`.
fn earliest(now: Timestamp, instants: impl Iterator<Item = Timestamp>) -> Option<Timestamp> {
    instants.filter(|at| *at > now).min()
}
