//! A target that makes nothing: what it is told to create is there at once, ready.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_engine::clock::{Clock as _, SystemClock};
use kiln_engine::target::{Examination, Measured, Probes};
use kiln_engine::{Target, TargetError};
use kiln_model::analysis::Answers;
use kiln_model::name::{InstanceId, StackName};
use kiln_model::observed::{ObservedInstance, ObservedNetwork, Phase, Verdict};
use kiln_model::plan::{Creation, Doomed, InstanceCreation, NetworkCreation};
use kiln_model::route::RouteTable;
use kiln_model::scaling::Demand;
use kiln_model::spec::scale::NumberTarget;
use tokio::sync::Notify;

/// The target.
#[derive(Default)]
pub(crate) struct Nothing {
    made: Mutex<Made>,
    changed: Notify,
}

#[derive(Default)]
struct Made {
    networks: BTreeMap<InstanceId, ObservedNetwork>,
    instances: BTreeMap<InstanceId, ObservedInstance>,
    table: Option<RouteTable>,
}

impl Nothing {
    /// How many instances there are.
    pub(crate) fn instances(&self) -> usize {
        self.made().instances.len()
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        // The maps are whole between any two statements.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for Nothing {
    async fn observe(&self, _: &StackName, _: &Probes) -> Result<Measured, TargetError> {
        let made = self.made();
        Ok(Measured {
            at: SystemClock.now(),
            networks: made.networks.values().cloned().collect(),
            instances: made.instances.values().cloned().collect(),
            table: made.table.clone(),
            ..Measured::default()
        })
    }

    async fn create(&self, creation: &Creation) -> Result<(), TargetError> {
        let mut made = self.made();
        match creation {
            Creation::Network(network) => {
                made.networks.insert(network.id.clone(), as_network(network));
            }
            Creation::Instance(instance) => {
                made.instances.insert(instance.id.clone(), as_instance(instance));
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn route(&self, table: &RouteTable) -> Result<(), TargetError> {
        self.made().table = (!table.is_empty()).then(|| table.clone());
        Ok(())
    }

    async fn drain(&self, instance: &InstanceId) -> Result<(), TargetError> {
        if let Some(seen) = self.made().instances.get_mut(instance) {
            seen.draining_since = Some(SystemClock.now());
        }
        Ok(())
    }

    async fn destroy(&self, doomed: &Doomed) -> Result<(), TargetError> {
        let mut made = self.made();
        match doomed {
            Doomed::Network(id) => drop(made.networks.remove(id)),
            Doomed::Instance(id, _) => drop(made.instances.remove(id)),
            Doomed::Data(..) => {}
        }
        Ok(())
    }

    async fn changed(&self, _: &StackName) {
        self.changed.notified().await;
    }

    async fn examine(&self, _: &Examination) -> Result<(), String> {
        Ok(())
    }

    async fn demand(&self, _: &StackName, _: &[InstanceId]) -> Result<Demand, TargetError> {
        Ok(Demand { at: SystemClock.now(), ..Demand::default() })
    }

    async fn number(&self, _: &NumberTarget) -> Result<u64, String> {
        Err("no programs are run here".to_owned())
    }

    async fn last_words(&self, _: &InstanceId, _: usize) -> Vec<String> {
        Vec::new()
    }
}

fn as_network(network: &NetworkCreation) -> ObservedNetwork {
    ObservedNetwork {
        id: network.id.clone(),
        component: network.component.clone(),
        digest: network.digest,
        identity: network.identity.clone(),
        drift: Vec::new(),
    }
}

fn as_instance(instance: &InstanceCreation) -> ObservedInstance {
    let now = SystemClock.now();
    ObservedInstance {
        id: instance.id.clone(),
        component: instance.component.clone(),
        digest: instance.digest,
        generation: instance.generation,
        network: instance.network.clone(),
        address: instance.address,
        connects: instance.server.identity.connects.clone(),
        created_at: now,
        pid: Some(1),
        phase: Phase::Running,
        health: Verdict::Ready { since: now },
        draining_since: None,
        in_flight: 0,
        answers: Answers::default(),
        integrity: None,
        data: None,
        drift: Vec::new(),
    }
}
