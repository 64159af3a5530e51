//! A target in memory with a database: who takes writes, in the steps in which a machine has it.

use kiln_engine::target::{Measured, Probes};
use kiln_engine::{Target, TargetError};
use kiln_model::data::DataOrigin;
use kiln_model::name::{InstanceId, StackName};
use kiln_model::observed::{Ending, ObservedInstance, ObservedNetwork, Phase, Verdict};
use kiln_model::plan::{Creation, Doomed, InstanceCreation};
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::route::RouteTable;
use kiln_model::scaling::Demand;
use kiln_model::spec::scale::NumberTarget;

use crate::flaw::Flaw;
use crate::world::{Shared, World};

use super::state::{Node, Volume, route};

/// How long one may take to receive what it lacks.
const CATCHING_UP: Millis = Millis::seconds(5);

/// The simulated target.
pub struct DataTarget(pub Shared);

impl Target for DataTarget {
    async fn observe(&self, _: &StackName, _: &Probes) -> Result<Measured, TargetError> {
        self.0.tick().await;
        let world = self.0.lock();
        Ok(Measured {
            at: world.now(),
            networks: world.networks.values().cloned().collect(),
            instances: world.observed_nodes(),
            table: world.table.clone(),
            volumes: world.observed_volumes(),
            gates: world.observed_gates(),
            ..Measured::default()
        })
    }

    async fn create(&self, creation: &Creation) -> Result<(), TargetError> {
        self.0.tick().await;
        {
            let mut world = self.0.lock();
            if world.chaos.one_in(50) {
                return Err(TargetError::passing("create", "a simulated failure"));
            }
            match creation {
                Creation::Network(network) => {
                    let observed = ObservedNetwork {
                        id: network.id.clone(),
                        component: network.component.clone(),
                        digest: network.digest,
                        identity: network.identity.clone(),
                        drift: Vec::new(),
                    };
                    world.networks.insert(network.id.clone(), observed);
                }
                Creation::Instance(instance) => world.make_node(instance)?,
            }
        }
        self.0.changed.notify_one();
        self.0.tick().await;
        Ok(())
    }

    async fn route(&self, table: &RouteTable) -> Result<(), TargetError> {
        self.0.tick().await;
        if let Some(primary) = route(Some(table)).and_then(|route| route.primary.clone()) {
            self.promote(&primary).await?;
        }
        self.0.tick().await;
        self.0.lock().set_table(table);
        self.0.changed.notify_one();
        self.0.tick().await;
        Ok(())
    }

    async fn drain(&self, instance: &InstanceId) -> Result<(), TargetError> {
        self.0.tick().await;
        let mut world = self.0.lock();
        let now = world.now();
        world.say(format!("drain {instance}"));
        if let Some(node) = world.data.nodes.get_mut(instance) {
            node.seen.draining_since.get_or_insert(now);
        }
        Ok(())
    }

    async fn destroy(&self, doomed: &Doomed) -> Result<(), TargetError> {
        self.0.tick().await;
        {
            let mut world = self.0.lock();
            world.say(format!("destroy {doomed:?}"));
            match doomed {
                Doomed::Network(id) => drop(world.networks.remove(id)),
                // Nobody here asks for that, nor for another branch.
                Doomed::Data(..) => world.violation("data is removed for good"),
                Doomed::Instance(id, _) => {
                    if world.data.gate.primary.as_ref() == Some(id) && world.flaw == Flaw::None {
                        world.violation(format!("{id} is destroyed and takes writes"));
                    }
                    world.data.nodes.remove(id);
                    world.prune();
                }
            }
        }
        self.0.tick().await;
        Ok(())
    }

    async fn changed(&self, _: &StackName) {
        let turn = tokio::time::sleep(std::time::Duration::from_millis(40));
        tokio::select! {
            biased;
            () = self.0.changed.notified() => {}
            () = turn => {}
        }
    }

    async fn examine(&self, _: &kiln_engine::target::Examination) -> Result<(), String> {
        Ok(())
    }

    async fn demand(&self, _: &StackName, _: &[InstanceId]) -> Result<Demand, TargetError> {
        Ok(Demand { at: self.0.lock().now(), ..Demand::default() })
    }

    async fn number(&self, _: &NumberTarget) -> Result<u64, String> {
        Err("no programs are run here".to_owned())
    }

    async fn last_words(&self, instance: &InstanceId, _: usize) -> Vec<String> {
        vec![format!("the last words of {instance}")]
    }
}

impl DataTarget {
    /// Has one take the writes. The engine may be ended between any two of the steps.
    async fn promote(&self, primary: &InstanceId) -> Result<(), TargetError> {
        let fail = |why: &str| TargetError::passing(format!("promote {primary}"), why);
        let (name, standby, is_head) = {
            let world = self.0.lock();
            let node = world.data.nodes.get(primary).filter(|node| node.works(world.now()));
            let name = node.ok_or_else(|| fail("it does not answer"))?.volume.clone();
            let (head, standby) = (&world.data.head, world.data.volumes[&name].standby);
            if !standby && head.is_some() && *head != Some(name.clone()) {
                return Err(fail("it takes writes already and does not hold the head"));
            }
            (name.clone(), standby, *head == Some(name))
        };
        if is_head && !standby {
            return Ok(());
        }
        if standby {
            let position = self.0.lock().fence_others(primary);
            self.0.tick().await;
            let begun = self.0.lock().now();
            while self.0.lock().lacks(&name, position) {
                if self.0.lock().now().since(begun) >= CATCHING_UP {
                    return Err(fail("it lacks what was written before it"));
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            self.0.tick().await;
            if !self.0.lock().is_promoted(primary, &name) {
                return Err(fail("it is not promoted"));
            }
        }
        self.0.tick().await;
        self.0.lock().set_head(&name);
        Ok(())
    }
}

impl World {
    fn make_node(&mut self, instance: &InstanceCreation) -> Result<(), TargetError> {
        let fail = |why: &str| TargetError::passing(format!("create {}", instance.id), why);
        let now = self.now();
        let data = instance.data.as_ref().expect("a database's");
        let took = Millis(self.data.rng.below(1_500));
        let (volume, took) = match &data.origin {
            DataOrigin::Empty => {
                if self.data.head.is_some() {
                    self.violation("data is begun anew beside what is there");
                }
                self.data.volumes.insert(instance.id.clone(), Volume::default());
                (instance.id.clone(), took)
            }
            DataOrigin::Standby { of } => {
                let node = self.data.nodes.get(of).filter(|node| node.works(now));
                let from = node.ok_or_else(|| fail("there is nobody to copy"))?.volume.clone();
                let copy = Volume { standby: true, ..self.data.volumes[&from].clone() };
                self.data.volumes.insert(instance.id.clone(), copy);
                (instance.id.clone(), took)
            }
            DataOrigin::Branch { .. } | DataOrigin::Upgrade { .. } => {
                return Err(fail("there is one branch and one version"));
            }
            DataOrigin::Volume { volume } => {
                let held = |node: &&Node| node.volume == *volume && node.seen.is_running();
                if self.data.nodes.values().any(|node| held(&node)) {
                    self.violation(format!("{volume} is given to {} and held", instance.id));
                }
                (volume.clone(), Millis(0))
            }
        };
        self.say(format!(
            "create {} for {} of {:?}",
            instance.id, instance.generation, data.origin
        ));
        let made_at = now.after(took);
        let ready_at = made_at.after(Millis(self.data.rng.below(300) + 20));
        let seen = seen(instance, now);
        let node = Node {
            seen,
            volume,
            made_at,
            ready_at,
            copied_from: match &data.origin {
                DataOrigin::Standby { of } => Some(of.clone()),
                _ => None,
            },
            half: false,
            hung_at: None,
            deaf_until: now,
            heard_at: now,
        };
        self.data.nodes.insert(instance.id.clone(), node);
        Ok(())
    }

    /// All others that take writes take none any more; how far the one that could goes.
    fn fence_others(&mut self, next: &InstanceId) -> usize {
        let now = self.now();
        let others = self.data.nodes.values().filter(|node| node.seen.id != *next);
        let others: Vec<InstanceId> = others
            .filter(|node| self.data.volumes.get(&node.volume).is_some_and(|v| !v.standby))
            .map(|node| node.seen.id.clone())
            .collect();
        let mut position = 0;
        for id in others {
            let node = self.data.nodes.get_mut(&id).unwrap();
            if node.works(now) {
                position = position.max(self.data.volumes[&node.volume].rows.len());
                self.data.pending = None;
            } else if node.seen.is_running() {
                node.seen.phase = Phase::Ended { cause: Ending::Killed(9) };
            }
        }
        position
    }

    /// Has one take writes from now on; it may fail to.
    fn is_promoted(&mut self, primary: &InstanceId, volume: &InstanceId) -> bool {
        let now = self.now();
        let works = self.data.nodes.get(primary).is_some_and(|node| node.works(now));
        if !works || self.chaos.one_in(20) {
            return false;
        }
        self.say(format!("promote {primary}"));
        self.data.volumes.get_mut(volume).unwrap().standby = false;
        true
    }

    /// Whether a volume goes less far than it should to be promoted.
    fn lacks(&self, volume: &InstanceId, position: usize) -> bool {
        let has = self.data.volumes.get(volume).map_or(0, |volume| volume.rows.len());
        has < position && self.flaw != Flaw::PromotedBlindly
    }

    fn set_head(&mut self, volume: &InstanceId) {
        if self.data.head.as_ref() == Some(volume) {
            return;
        }
        self.say(format!("the head is {volume}"));
        self.data.previous = self.data.head.replace(volume.clone());
        if self.flaw != Flaw::LostHead || self.data.head_on_disk.is_none() {
            self.data.head_on_disk = Some(volume.clone());
        }
        self.prune();
    }

    /// Volumes go that nobody holds, but for the head and the one before.
    fn prune(&mut self) {
        let data = &mut self.data;
        let kept = [&data.head, &data.previous, &data.head_on_disk].map(Clone::clone);
        let held: Vec<InstanceId> = data.nodes.values().map(|node| node.volume.clone()).collect();
        data.volumes.retain(|id, _| kept.contains(&Some(id.clone())) || held.contains(id));
    }

    fn set_table(&mut self, table: &RouteTable) {
        let now = self.now();
        let route = route(Some(table)).cloned();
        let (primary, holds) = route.map_or((None, false), |it| (it.primary, it.holds));
        self.say(format!(
            "route {} to {primary:?}{}",
            table.epoch,
            if holds { ", held" } else { "" }
        ));
        let held = holds || primary.is_none();
        let data = &mut self.data;
        let was_held = data.gate.held_since;
        if !held && was_held.is_some() {
            data.gate.released_at = Some(now);
            data.gate.settled_since = None;
        }
        data.gate.held_since = held.then(|| was_held.unwrap_or(now));
        if primary.is_some() || self.flaw != Flaw::LeakyFence {
            if data.gate.primary != primary {
                // Its sessions end: whether it was written is not known to the client.
                data.pending = None;
                data.busy_until = now;
            }
            data.gate.primary = primary;
        }
        self.table = (!table.is_empty()).then(|| table.clone());
    }
}

fn seen(instance: &InstanceCreation, now: Timestamp) -> ObservedInstance {
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
        health: Verdict::Starting { last: None },
        draining_since: None,
        in_flight: 0,
        answers: kiln_model::analysis::Answers::default(),
        integrity: None,
        data: None,
        drift: Vec::new(),
    }
}
