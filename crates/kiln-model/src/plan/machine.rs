//! A machine in memory that takes every step at once, for the planner's tests.

use crate::data::ObservedData;
use crate::fixture::id;
use crate::name::InstanceId;
use crate::observed::{Observed, ObservedInstance, ObservedNetwork, Phase, Verdict};
use crate::quantity::Timestamp;

use super::{Action, Creation, Doomed, InstanceCreation, NetworkCreation, Plan};

/// A machine that takes every step at once and without fail.
pub(crate) struct Machine {
    pub(crate) observed: Observed,
    /// Whether new instances are ready at once.
    pub(crate) healthy: bool,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let at = Timestamp(1_000);
        Self { observed: Observed { at, ..Observed::default() }, healthy: true }
    }

    pub(crate) fn take(&mut self, plan: &Plan) {
        for step in &plan.steps {
            self.act(&step.action);
        }
        self.observed.networks.sort_by(|a, b| a.id.cmp(&b.id));
        self.observed.instances.sort_by(|a, b| a.id.cmp(&b.id));
        self.observed.at.0 += 1;
    }

    fn act(&mut self, action: &Action) {
        let observed = &mut self.observed;
        match action {
            Action::Create(Creation::Network(n)) => observed.networks.push(ObservedNetwork {
                id: n.id.clone(),
                component: n.component.clone(),
                digest: n.digest,
                identity: n.identity.clone(),
                drift: Vec::new(),
            }),
            Action::Create(Creation::Instance(i)) => {
                let health = if self.healthy {
                    Verdict::Ready { since: observed.at }
                } else {
                    Verdict::Starting { last: Some("refused".to_owned()) }
                };
                observed.instances.push(made(i, observed.at, health, None));
            }
            Action::Route(table) => {
                observed.table = (!table.is_empty()).then(|| (**table).clone());
            }
            Action::Drain(id) => {
                let at = observed.at;
                self.instance(id).draining_since = Some(at);
            }
            Action::Destroy(Doomed::Instance(id, _)) => observed.instances.retain(|i| i.id != *id),
            Action::Destroy(Doomed::Network(id)) => observed.networks.retain(|n| n.id != *id),
            Action::Destroy(Doomed::Data(_, id)) => {
                observed.volumes.retain(|volume| volume.component != *id);
            }
        }
    }

    pub(crate) fn instance(&mut self, id: &InstanceId) -> &mut ObservedInstance {
        self.observed.instances.iter_mut().find(|i| i.id == *id).unwrap()
    }

    pub(crate) fn count(&self, component: &str) -> usize {
        self.observed.instances.iter().filter(|i| i.component == id(component)).count()
    }
}

/// An instance that has just been made.
pub(super) fn made(
    creation: &InstanceCreation,
    at: Timestamp,
    health: Verdict,
    data: Option<ObservedData>,
) -> ObservedInstance {
    ObservedInstance {
        id: creation.id.clone(),
        component: creation.component.clone(),
        digest: creation.digest,
        generation: creation.generation,
        network: creation.network.clone(),
        address: creation.address,
        connects: creation.server.identity.connects.clone(),
        created_at: at,
        pid: Some(1),
        phase: Phase::Running,
        health,
        draining_since: None,
        in_flight: 0,
        answers: crate::analysis::Answers::default(),
        integrity: None,
        data,
        drift: Vec::new(),
    }
}

/// A network that has just been made.
pub(super) fn network(creation: &NetworkCreation) -> ObservedNetwork {
    ObservedNetwork {
        id: creation.id.clone(),
        component: creation.component.clone(),
        digest: creation.digest,
        identity: creation.identity.clone(),
        drift: Vec::new(),
    }
}
