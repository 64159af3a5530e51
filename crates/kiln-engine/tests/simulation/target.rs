//! A target in memory: instances that take their time, fail and are killed, and a gateway.

use kiln_engine::target::{Measured, Probes};
use kiln_engine::{Target, TargetError};
use kiln_model::name::{InstanceId, StackName};
use kiln_model::observed::{ObservedInstance, ObservedNetwork, Phase, Verdict};
use kiln_model::plan::{Creation, Doomed, InstanceCreation, NetworkCreation};
use kiln_model::quantity::Millis;
use kiln_model::route::RouteTable;
use kiln_model::scaling::Demand;
use kiln_model::spec::scale::NumberTarget;

use crate::flaw::Flaw;
use crate::laws;
use crate::world::{Body, Shared, World};

/// The simulated target.
pub struct SimTarget(pub Shared);

impl Target for SimTarget {
    async fn observe(&self, stack: &StackName, _: &Probes) -> Result<Measured, TargetError> {
        self.0.tick().await;
        let mut world = self.0.lock();
        if stack.as_str() != "shop" {
            return Ok(Measured { at: world.now(), ..Measured::default() });
        }
        if world.chaos.one_in(400) {
            return Err(TargetError::passing("look at shop", "a simulated failure"));
        }
        world.settle();
        let mut instances: Vec<ObservedInstance> =
            world.bodies.values().map(|b| b.seen.clone()).collect();
        for instance in &mut instances {
            let busy = world.in_flight.iter().filter(|f| f.instance == instance.id).count();
            instance.in_flight = u32::try_from(busy).unwrap();
        }
        Ok(Measured {
            at: world.now(),
            networks: world.networks.values().cloned().collect(),
            instances,
            table: world.table.clone(),
            ..Measured::default()
        })
    }

    async fn create(&self, creation: &Creation) -> Result<(), TargetError> {
        self.0.tick().await;
        {
            let mut world = self.0.lock();
            laws::creation(&mut world, creation);
            if world.chaos.one_in(100) {
                return Err(TargetError::passing("create", "a simulated failure"));
            }
            if world.exists(creation) {
                return Err(TargetError::passing("create", "it exists"));
            }
            match creation {
                Creation::Network(network) => world.make_network(network),
                Creation::Instance(instance) => world.make_instance(instance),
            }
        }
        self.0.changed.notify_one();
        self.0.tick().await;
        Ok(())
    }

    async fn route(&self, table: &RouteTable) -> Result<(), TargetError> {
        self.0.tick().await;
        {
            let mut world = self.0.lock();
            laws::route(&mut world, table);
            if world.table.as_ref().is_some_and(|t| t.epoch >= table.epoch) {
                return Err(TargetError::passing(
                    "route",
                    "the table is older than the present one",
                ));
            }
            world.say(format!(
                "route {} {:?}",
                table.epoch,
                table.in_rotation().collect::<Vec<_>>()
            ));
            // The gateway ends by itself when there is nothing to do.
            world.table = (!table.is_empty()).then(|| table.clone());
        }
        self.0.tick().await;
        Ok(())
    }

    async fn drain(&self, instance: &InstanceId) -> Result<(), TargetError> {
        self.0.tick().await;
        let mut world = self.0.lock();
        laws::ending(&mut world, instance, "drained");
        laws::patience(&mut world, instance);
        let now = world.now();
        world.say(format!("drain {instance}"));
        if let Some(body) = world.bodies.get_mut(instance) {
            body.seen.draining_since.get_or_insert(now);
        }
        Ok(())
    }

    async fn destroy(&self, doomed: &Doomed) -> Result<(), TargetError> {
        self.0.tick().await;
        let stop = {
            let mut world = self.0.lock();
            world.say(format!("destroy {doomed:?}"));
            match doomed {
                Doomed::Network(id) => {
                    laws::network_ending(&mut world, id);
                    world.networks.remove(id);
                    Millis(0)
                }
                Doomed::Data(..) => Millis(0),
                Doomed::Instance(id, evidence) => {
                    laws::evidence(&mut world, id, *evidence);
                    laws::ending(&mut world, id, "destroyed");
                    laws::not_answering(&mut world, id);
                    let running = world.bodies.get(id).filter(|body| body.seen.is_running());
                    running.map_or(Millis(0), |body| body.stop)
                }
            }
        };
        tokio::time::sleep(stop.into()).await;
        if let Doomed::Instance(id, _) = doomed {
            self.0.lock().bodies.remove(id);
        }
        self.0.tick().await;
        Ok(())
    }

    async fn changed(&self, _: &StackName) {
        if self.0.lock().flaw == Flaw::LostEvent {
            std::future::pending::<()>().await;
        }
        // As a machine would: an event now and then, and one when an instance's state turns.
        let next = self.0.lock().next_turn();
        let turn = async {
            match next {
                Some(span) => tokio::time::sleep(span.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.0.changed.notified() => {}
            () = turn => {}
        }
    }

    async fn examine(&self, _: &kiln_engine::target::Examination) -> Result<(), String> {
        self.0.tick().await;
        Ok(())
    }

    async fn demand(&self, stack: &StackName, _: &[InstanceId]) -> Result<Demand, TargetError> {
        self.0.tick().await;
        let mut world = self.0.lock();
        if world.chaos.one_in(100) {
            return Err(TargetError::passing(format!("measure {stack}"), "a simulated failure"));
        }
        world.settle();
        let (now, arrivals) = (world.now(), world.arrivals());
        let servers = [(kiln_model::fixture::id("server.web"), arrivals)].into();
        Ok(Demand { at: now, servers, ..Demand::default() })
    }

    async fn number(&self, _: &NumberTarget) -> Result<u64, String> {
        Err("no programs are run here".to_owned())
    }

    async fn last_words(&self, instance: &InstanceId, _: usize) -> Vec<String> {
        vec![format!("the last words of {instance}")]
    }
}

impl World {
    fn exists(&self, creation: &Creation) -> bool {
        match creation {
            Creation::Network(network) => self.networks.contains_key(&network.id),
            Creation::Instance(instance) => self.bodies.contains_key(&instance.id),
        }
    }

    fn make_network(&mut self, network: &NetworkCreation) {
        self.say(format!("create {}", network.id));
        let observed = ObservedNetwork {
            id: network.id.clone(),
            component: network.component.clone(),
            digest: network.digest,
            identity: network.identity.clone(),
            drift: Vec::new(),
        };
        self.networks.insert(network.id.clone(), observed);
    }

    fn make_instance(&mut self, instance: &InstanceCreation) {
        self.say(format!("create {} for {}", instance.id, instance.generation));
        let now = self.now();
        let bad = self.bad.contains(&instance.image);
        let crashes = bad && self.chaos.one_in(2);
        let (start, crash) = (self.delays.below(200), self.delays.below(200));
        // Some do not listen when they are asked to end.
        let stop = if self.delays.one_in(8) { self.delays.below(20_000) } else { 0 };
        let seen = ObservedInstance {
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
            health: Verdict::Starting { last: Some("refused".to_owned()) },
            draining_since: None,
            in_flight: 0,
            answers: kiln_model::analysis::Answers::default(),
            integrity: None,
            data: None,
            drift: Vec::new(),
        };
        let body = Body {
            seen,
            ready_at: (!bad).then(|| now.after(Millis(start))),
            crash_at: crashes.then(|| now.after(Millis(crash))),
            broken_at: None,
            patience: instance.server.policy.health.replace_after,
            stop: Millis(stop),
            erring: self.erring.contains(&instance.image),
        };
        self.bodies.insert(instance.id.clone(), body);
    }

    /// Lets what is due happen.
    pub fn settle(&mut self) {
        let now = self.now();
        self.in_flight.retain(|f| f.until > now);
        for body in self.bodies.values_mut() {
            if body.crash_at.is_some_and(|at| at <= now) && body.seen.is_running() {
                let cause = kiln_model::observed::Ending::Exited(1);
                body.seen.phase = Phase::Ended { cause };
            }
            if matches!(body.seen.health, Verdict::Starting { .. } | Verdict::Unready { .. })
                && let Some(at) = body.ready_at.filter(|at| *at <= now)
            {
                body.seen.health = Verdict::Ready { since: at };
            }
        }
    }

    /// How long until an instance's state turns, or a drained one has nothing more to do.
    fn next_turn(&self) -> Option<Millis> {
        let now = self.now();
        let turns = self.bodies.values().flat_map(|b| [b.ready_at, b.crash_at]).flatten();
        let ends = self.in_flight.iter().map(|f| f.until);
        turns.chain(ends).filter(|at| *at > now).min().map(|at| at.since(now))
    }
}
