//! Small specs and generations, for tests of this crate and of those above it.
//!
//! Behind the feature `fixture`, so that no program carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::digest::Digest;
use crate::generation::{Component, Content, Generation, Origin};
use crate::handling::Handling;
use crate::name::{ComponentId, Kind};
use crate::quantity::{Bytes, Millis, Timestamp};
use crate::route::Protocol;
use crate::seal::seal;
use crate::spec::database::{Database, DatabaseIdentity, DatabasePolicy, Engine};
use crate::spec::endpoint::{EndpointIdentity, EndpointPolicy};
use crate::spec::image::{Base, ImageIdentity, ImagePolicy, Inputs, Recipe};
use crate::spec::network::NetworkIdentity;
use crate::spec::rollout::{Rollout, Strategy};
use crate::spec::scale::Scale;
use crate::spec::secret::{Secret, SecretIdentity, SecretSource, SecretVersion};
use crate::spec::server::{Connection, Health, Probe, Seccomp, ServerIdentity, ServerPolicy, Stop};
use crate::spec::{Body, Endpoint, Image, Network, Server, Spec};

/// The component `text`.
pub fn id(text: &str) -> ComponentId {
    text.parse().expect("a literal that parses")
}

fn component(kind: Kind, name: &str, body: Body) -> Spec {
    Spec { id: ComponentId::new(kind, name), body, sensitive: BTreeSet::new() }
}

/// An image on nothing, locked to `inputs`.
pub fn image(name: &str, inputs: &str) -> Spec {
    let entrypoint = vec!["/serve".to_owned()];
    let recipe = Recipe { entrypoint, ..Recipe::on(Base::Scratch) };
    let inputs = Inputs::Locked(Digest::of(inputs.as_bytes()));
    let identity = ImageIdentity { recipe, inputs };
    let body = Body::Image(Box::new(Image { identity, policy: ImagePolicy::default() }));
    component(Kind::Image, name, body)
}

/// A network without egress.
pub fn network(name: &str, cidr: &str) -> Spec {
    let identity =
        NetworkIdentity { cidr: cidr.parse().expect("a literal that parses"), egress: Vec::new() };
    component(Kind::Network, name, Body::Network(Network { identity }))
}

/// An HTTP endpoint at `listen`, to port 8080 of server `to`.
pub fn endpoint(name: &str, listen: &str, to: &str) -> Spec {
    let endpoint = Endpoint {
        identity: EndpointIdentity { listen: listen.parse().expect("a literal that parses") },
        policy: EndpointPolicy {
            to: ComponentId::new(Kind::Server, to),
            port: 8080,
            protocol: Protocol::Http,
            routes: Vec::new(),
            handling: Handling::default(),
        },
    };
    component(Kind::Endpoint, name, Body::Endpoint(Box::new(endpoint)))
}

/// A server under construction: image `web`, network `front`, one replica.
pub struct ServerBuilder {
    name: String,
    server: Server,
}

/// A server of image `web` in network `front`, one replica.
pub fn server(name: &str) -> ServerBuilder {
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
        seccomp: Seccomp::Default,
        connects: Vec::new(),
        stop: Stop::default(),
    };
    let policy = ServerPolicy {
        address: Ipv4Addr::new(10, 0, 0, 2),
        replicas: 1,
        scale: None,
        health: Health {
            probe: Probe::Tcp { port: 8080 },
            every: Millis::seconds(1),
            timeout: Millis(500),
            failures: 3,
            successes: 1,
            startup: None,
            liveness: None,
            replace_after: None,
        },
        rollout: Rollout::rolling(Millis::seconds(60)),
        quarantine: false,
    };
    ServerBuilder { name: name.to_owned(), server: Server { identity, policy } }
}

impl ServerBuilder {
    /// So many instances.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.server.policy.replicas = replicas;
        self
    }

    /// With evidence kept of instances that have drifted.
    #[must_use]
    pub fn quarantine(mut self) -> Self {
        self.server.policy.quarantine = true;
        self
    }

    /// So many instances as its targets want.
    #[must_use]
    pub fn scale(mut self, scale: Scale) -> Self {
        self.server.policy.scale = Some(scale);
        self
    }

    /// Given up after so long.
    #[must_use]
    pub fn deadline(mut self, deadline: Millis) -> Self {
        self.server.policy.rollout.deadline = deadline;
        self
    }

    /// Replaced in this way.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.server.policy.rollout.strategy = strategy;
        self
    }

    /// Replaced as this says.
    #[must_use]
    pub fn rollout(mut self, rollout: Rollout) -> Self {
        self.server.policy.rollout = rollout;
        self
    }

    /// Out of rotation while it is unready, and replaced after so long.
    #[must_use]
    pub fn replace_after(mut self, bound: Millis) -> Self {
        self.server.policy.health.replace_after = Some(bound);
        self
    }

    /// May connect to server `to`.
    #[must_use]
    pub fn connects(mut self, to: &str) -> Self {
        let to = ComponentId::new(Kind::Server, to);
        self.server.identity.connects.push(Connection { to, address: Ipv4Addr::new(10, 0, 0, 3) });
        self
    }

    /// The finished spec.
    pub fn spec(self) -> Spec {
        component(Kind::Server, &self.name, Body::Server(Box::new(self.server)))
    }
}

/// A secret of which a version is known.
pub fn secret(name: &str) -> Spec {
    let version = SecretVersion::Known("0123456789abcdef0123456789abcdef".to_owned());
    let secret =
        Secret { identity: SecretIdentity { version }, source: SecretSource::Generate(16) };
    component(Kind::Secret, name, Body::Secret(secret))
}

/// A database under construction: PostgreSQL 15, image `pg`, network `back`, no standby.
pub struct DatabaseBuilder {
    name: String,
    database: Database,
}

/// A database of image `pg` in network `back` whose password is the secret of the same name.
pub fn database(name: &str) -> DatabaseBuilder {
    let identity = DatabaseIdentity {
        engine: Engine::Postgres,
        version: 15,
        image: id("image.pg").into(),
        network: id("network.back").into(),
        memory: Bytes::mib(256),
        cpu: None,
        pids: 128,
        size: Bytes::mib(1024),
        settings: BTreeMap::new(),
        database: name.to_owned(),
        user: name.to_owned(),
        extensions: BTreeSet::new(),
        synchronous: false,
        archived: false,
    };
    let policy = DatabasePolicy {
        address: Ipv4Addr::new(10, 0, 0, 2),
        password: ComponentId::new(Kind::Secret, name),
        replicas: 0,
        hold: Millis::seconds(5),
        rollout: Rollout::rolling(Millis::seconds(600)),
        backup: None,
    };
    DatabaseBuilder { name: name.to_owned(), database: Database { identity, policy } }
}

impl DatabaseBuilder {
    /// So many synchronous standbys.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.database.policy.replicas = replicas;
        self.database.identity.synchronous = replicas > 0;
        self
    }

    /// Whose changes may take so long.
    #[must_use]
    pub fn deadline(mut self, deadline: Millis) -> Self {
        self.database.policy.rollout = Rollout::rolling(deadline);
        self
    }

    /// Of this major version.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.database.identity.version = version;
        self
    }

    /// With so much memory.
    #[must_use]
    pub fn memory(mut self, memory: Bytes) -> Self {
        self.database.identity.memory = memory;
        self
    }

    /// The finished spec.
    pub fn spec(self) -> Spec {
        component(Kind::Database, &self.name, Body::Database(Box::new(self.database)))
    }
}

/// A generation of `specs`, whose images are all built.
pub fn generation(number: u64, specs: Vec<Spec>) -> Generation {
    let sealed = seal(specs).expect("specs that fit together");
    let components: BTreeMap<ComponentId, Component> = sealed
        .into_iter()
        .map(|(id, s)| (id, Component { digest: s.digest.expect("a known digest"), spec: s.spec }))
        .collect();
    let images = components
        .iter()
        .filter(|(id, _)| id.kind == Kind::Image)
        .map(|(id, component)| (id.clone(), component.digest))
        .collect();
    Generation {
        stack: "shop".parse().expect("a literal that parses"),
        number,
        parent: number.checked_sub(1),
        origin: Origin::Apply,
        commit: None,
        created_at: Timestamp(0),
        content: Content { components, images, ..Content::default() },
    }
}
