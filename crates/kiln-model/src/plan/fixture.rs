//! Small specs, generations and observations for the tests of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::digest::Digest;
use crate::generation::{Component, Content, Generation, Origin};
use crate::name::{ComponentId, InstanceId, Kind};
use crate::observed::{Observed, ObservedInstance, ObservedNetwork, Phase, Verdict};
use crate::quantity::{Bytes, Millis, Timestamp};
use crate::route::Protocol;
use crate::seal::seal;
use crate::spec::endpoint::{EndpointIdentity, EndpointPolicy};
use crate::spec::image::{Base, ImageIdentity, Inputs, Recipe};
use crate::spec::network::NetworkIdentity;
use crate::spec::server::{
    Connection, Health, Probe, Rollout, ServerIdentity, ServerPolicy, Stop, Strategy,
};
use crate::spec::{Body, Endpoint, Image, Network, Server, Spec};

use super::{Action, Creation, Doomed, Plan};

pub(crate) fn id(text: &str) -> ComponentId {
    text.parse().unwrap()
}

fn spec(kind: Kind, name: &str, body: Body) -> Spec {
    Spec { id: ComponentId::new(kind, name), body, sensitive: BTreeSet::new() }
}

pub(crate) fn image(name: &str, inputs: &str) -> Spec {
    let recipe = Recipe {
        base: Base::Scratch,
        packages: BTreeSet::new(),
        steps: Vec::new(),
        env: BTreeMap::new(),
        workdir: None,
        user: None,
        entrypoint: vec!["/serve".to_owned()],
        writable: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    let inputs = Inputs::Locked(Digest::of(inputs.as_bytes()));
    let body = Body::Image(Image { identity: ImageIdentity { recipe, inputs } });
    spec(Kind::Image, name, body)
}

pub(crate) fn network(name: &str, cidr: &str) -> Spec {
    let identity = NetworkIdentity { cidr: cidr.parse().unwrap(), egress: Vec::new() };
    spec(Kind::Network, name, Body::Network(Network { identity }))
}

pub(crate) fn endpoint(name: &str, listen: &str, to: &str) -> Spec {
    let endpoint = Endpoint {
        identity: EndpointIdentity { listen: listen.parse().unwrap() },
        policy: EndpointPolicy {
            to: ComponentId::new(Kind::Server, to),
            port: 8080,
            protocol: Protocol::Http,
        },
    };
    spec(Kind::Endpoint, name, Body::Endpoint(endpoint))
}

/// A server under construction: image `web`, network `front`, one replica.
pub(crate) struct ServerBuilder {
    name: String,
    server: Server,
}

pub(crate) fn server(name: &str) -> ServerBuilder {
    let identity = ServerIdentity {
        image: id("image.web").into(),
        network: id("network.front").into(),
        command: None,
        args: Vec::new(),
        env: BTreeMap::new(),
        workdir: None,
        user: None,
        memory: Bytes::mib(64),
        cpu: None,
        pids: 64,
        writable: BTreeMap::new(),
        connects: Vec::new(),
        stop: Stop::default(),
    };
    let policy = ServerPolicy {
        address: Ipv4Addr::new(10, 0, 0, 2),
        replicas: 1,
        health: Health {
            probe: Probe::Tcp { port: 8080 },
            every: Millis::seconds(1),
            timeout: Millis(500),
            failures: 3,
        },
        rollout: Rollout {
            strategy: Strategy::Rolling { surge: 1 },
            deadline: Millis::seconds(60),
        },
    };
    ServerBuilder { name: name.to_owned(), server: Server { identity, policy } }
}

impl ServerBuilder {
    pub(crate) fn replicas(mut self, replicas: u32) -> Self {
        self.server.policy.replicas = replicas;
        self
    }

    pub(crate) fn strategy(mut self, strategy: Strategy) -> Self {
        self.server.policy.rollout.strategy = strategy;
        self
    }

    pub(crate) fn connects(mut self, to: &str) -> Self {
        let to = ComponentId::new(Kind::Server, to);
        self.server.identity.connects.push(Connection { to, address: Ipv4Addr::new(10, 0, 0, 3) });
        self
    }

    pub(crate) fn spec(self) -> Spec {
        spec(Kind::Server, &self.name, Body::Server(Box::new(self.server)))
    }
}

/// A generation of `specs`, whose images are all built.
pub(crate) fn generation(number: u64, specs: Vec<Spec>) -> Generation {
    let sealed = seal(specs).unwrap();
    let components: BTreeMap<ComponentId, Component> = sealed
        .into_iter()
        .map(|(id, s)| (id, Component { digest: s.digest.unwrap(), spec: s.spec }))
        .collect();
    let images = components
        .iter()
        .filter(|(id, _)| id.kind == Kind::Image)
        .map(|(id, component)| (id.clone(), component.digest))
        .collect();
    Generation {
        stack: "shop".parse().unwrap(),
        number,
        parent: number.checked_sub(1),
        origin: Origin::Apply,
        commit: None,
        created_at: Timestamp(0),
        content: Content { components, images, ..Content::default() },
    }
}

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
                observed.instances.push(ObservedInstance {
                    id: i.id.clone(),
                    component: i.component.clone(),
                    digest: i.digest,
                    generation: i.generation,
                    network: i.network.clone(),
                    address: i.address,
                    connects: i.server.identity.connects.clone(),
                    created_at: observed.at,
                    pid: Some(1),
                    phase: Phase::Running,
                    health,
                    draining_since: None,
                    in_flight: 0,
                    drift: Vec::new(),
                });
            }
            Action::Route(table) => {
                observed.table = (!table.is_empty()).then(|| (**table).clone());
            }
            Action::Drain(id) => {
                let at = observed.at;
                self.instance(id).draining_since = Some(at);
            }
            Action::Destroy(Doomed::Instance(id)) => observed.instances.retain(|i| i.id != *id),
            Action::Destroy(Doomed::Network(id)) => observed.networks.retain(|n| n.id != *id),
        }
    }

    pub(crate) fn instance(&mut self, id: &InstanceId) -> &mut ObservedInstance {
        self.observed.instances.iter_mut().find(|i| i.id == *id).unwrap()
    }

    pub(crate) fn count(&self, component: &str) -> usize {
        self.observed.instances.iter().filter(|i| i.component == id(component)).count()
    }
}
