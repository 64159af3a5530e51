//! A target that keeps what it is told to make in a map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use kiln_engine::clock::{Clock as _, SystemClock};
use kiln_engine::target::{Measured, Probes};
use kiln_engine::{Target, TargetError};
use kiln_model::name::{InstanceId, StackName};
use kiln_model::observed::{ObservedInstance, ObservedNetwork, Phase, Verdict};
use kiln_model::plan::{Creation, Doomed};
use kiln_model::route::RouteTable;
use kiln_model::scaling::Demand;
use kiln_model::spec::scale::NumberTarget;
use tokio::sync::Notify;

/// What was made of one stack.
#[derive(Default)]
pub(crate) struct Memory {
    made: Mutex<Made>,
    changed: Notify,
    refuse: AtomicBool,
}

#[derive(Default)]
struct Made {
    networks: BTreeMap<InstanceId, ObservedNetwork>,
    instances: BTreeMap<InstanceId, ObservedInstance>,
    table: Option<RouteTable>,
}

impl Memory {
    /// From now on no new instance gets ready.
    pub(crate) fn let_nothing_get_ready(&self) {
        self.refuse.store(true, Ordering::SeqCst);
    }

    fn change(&self) -> MutexGuard<'_, Made> {
        self.changed.notify_one();
        self.made.lock().unwrap()
    }

    fn verdict(&self) -> Verdict {
        if self.refuse.load(Ordering::SeqCst) {
            Verdict::Starting { last: Some("connection refused".to_owned()) }
        } else {
            Verdict::Ready { since: SystemClock.now() }
        }
    }
}

impl Target for Memory {
    async fn observe(&self, _: &StackName, _: &Probes) -> Result<Measured, TargetError> {
        let made = self.made.lock().unwrap();
        Ok(Measured {
            at: SystemClock.now(),
            networks: made.networks.values().cloned().collect(),
            instances: made.instances.values().cloned().collect(),
            table: made.table.clone(),
            ..Measured::default()
        })
    }

    async fn create(&self, creation: &Creation) -> Result<(), TargetError> {
        let mut made = self.change();
        match creation {
            Creation::Network(network) => {
                let observed = ObservedNetwork {
                    id: network.id.clone(),
                    component: network.component.clone(),
                    digest: network.digest,
                    identity: network.identity.clone(),
                    drift: Vec::new(),
                };
                made.networks.insert(network.id.clone(), observed);
            }
            Creation::Instance(instance) => {
                let observed = ObservedInstance {
                    id: instance.id.clone(),
                    component: instance.component.clone(),
                    digest: instance.digest,
                    generation: instance.generation,
                    network: instance.network.clone(),
                    address: instance.address,
                    connects: instance.server.identity.connects.clone(),
                    created_at: SystemClock.now(),
                    pid: Some(1),
                    phase: Phase::Running,
                    health: self.verdict(),
                    draining_since: None,
                    in_flight: 0,
                    answers: kiln_model::analysis::Answers::default(),
                    integrity: None,
                    data: None,
                    drift: Vec::new(),
                };
                made.instances.insert(instance.id.clone(), observed);
            }
        }
        Ok(())
    }

    async fn route(&self, table: &RouteTable) -> Result<(), TargetError> {
        self.change().table = Some(table.clone());
        Ok(())
    }

    async fn drain(&self, instance: &InstanceId) -> Result<(), TargetError> {
        if let Some(instance) = self.change().instances.get_mut(instance) {
            instance.draining_since = Some(SystemClock.now());
        }
        Ok(())
    }

    async fn destroy(&self, doomed: &Doomed) -> Result<(), TargetError> {
        let mut made = self.change();
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

    async fn examine(&self, _: &kiln_engine::target::Examination) -> Result<(), String> {
        Ok(())
    }

    async fn demand(&self, _: &StackName, _: &[InstanceId]) -> Result<Demand, TargetError> {
        Ok(Demand { at: SystemClock.now(), ..Demand::default() })
    }

    async fn number(&self, _: &NumberTarget) -> Result<u64, String> {
        Err("no programs are run here".to_owned())
    }

    async fn last_words(&self, _: &InstanceId, _: usize) -> Vec<String> {
        vec!["no such file".to_owned()]
    }
}
