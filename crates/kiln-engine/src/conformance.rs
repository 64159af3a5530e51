//! What every implementation of a seam must do, as a suite that each runs against itself.
//!
//! Behind the feature `conformance`, so that no program carries it. A broken expectation is a
//! panic that says which.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::{ObservedInstance, Verdict};
use kiln_model::plan::{Creation, Doomed, Evidence, InstanceCreation, NetworkCreation};
use kiln_model::route::{Backend, EndpointRoute, NetworkRoute, Protocol, RouteTable};
use kiln_model::spec::server::Server;

use crate::target::{Measured, Probes, Target};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the suite makes of a target.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The stack that it is made for; nothing of it exists.
    pub stack: StackName,
    /// A server that gets ready by itself, and listens on `port`.
    pub server: Server,
    /// Where its instances listen.
    pub port: u16,
    /// The content of its image.
    pub image: Digest,
    /// A port of the host that nobody has.
    pub listen: SocketAddr,
}

/// Runs the suite against `target`, which is left as it was.
pub async fn target<T: Target>(target: &T, subject: &Subject) {
    let suite = Suite { target, subject };
    suite.nothing_is_there().await;
    suite.ending_what_is_not_there_succeeds().await;
    suite.networks_come_once().await;
    suite.instances_come_once_and_get_ready().await;
    suite.tables_are_replaced_whole_and_never_by_older_ones().await;
    suite.draining_is_marked_once().await;
    suite.all_goes_without_a_trace().await;
}

struct Suite<'a, T> {
    target: &'a T,
    subject: &'a Subject,
}

impl<T: Target> Suite<'_, T> {
    async fn nothing_is_there(&self) {
        let seen = self.look().await;
        assert!(
            seen.networks.is_empty() && seen.instances.is_empty(),
            "something is there: {seen:?}"
        );
        assert!(seen.table.is_none_or(|t| t.is_empty()), "something is routed");
    }

    async fn ending_what_is_not_there_succeeds(&self) {
        let (stack, database) = (self.network().stack, "database.nowhere".parse().expect("a name"));
        for doomed in [
            Doomed::Instance(id("nobody-1"), Evidence::None),
            Doomed::Network(id("nowhere-1")),
            Doomed::Data(stack, database),
        ] {
            let ended = self.target.destroy(&doomed).await;
            assert_eq!(ended, Ok(()), "ending what is not there must succeed");
        }
    }

    async fn networks_come_once(&self) {
        let network = Creation::Network(Arc::new(self.network()));
        assert_eq!(self.target.create(&network).await, Ok(()), "a network can be made");
        assert!(self.target.create(&network).await.is_err(), "and not made twice");
        let seen = self.look().await;
        assert_eq!(seen.networks.len(), 1, "{seen:?}");
        let found = &seen.networks[0];
        assert_eq!((&found.id, found.digest), (&self.network().id, self.network().digest));
        assert_eq!(found.identity, self.network().identity);
        assert_eq!(found.drift, [], "what was just made is what it should be");
    }

    async fn instances_come_once_and_get_ready(&self) {
        let instance = Creation::Instance(Arc::new(self.instance()));
        assert_eq!(self.target.create(&instance).await, Ok(()), "an instance can be made");
        assert!(self.target.create(&instance).await.is_err(), "and not made twice");
        let seen = self.ready().await;
        let wanted = self.instance();
        assert_eq!((&seen.component, seen.digest), (&wanted.component, wanted.digest));
        assert_eq!((&seen.network, seen.address), (&wanted.network, wanted.address));
        assert_eq!(seen.generation, wanted.generation);
        assert_eq!((seen.drift.as_slice(), seen.draining_since), (&[][..], None));
        let other: StackName = "another".parse().expect("a name");
        let foreign = self.target.observe(&other, &self.probes()).await.expect("a look");
        assert!(foreign.instances.is_empty(), "another stack sees nothing of it");
    }

    async fn tables_are_replaced_whole_and_never_by_older_ones(&self) {
        let table = self.table(7);
        assert_eq!(self.target.route(&table).await, Ok(()), "a table can be set");
        assert_eq!(self.look().await.table, Some(table.clone()), "and is seen as it was set");
        assert!(self.target.route(&self.table(6)).await.is_err(), "an older one is refused");
        assert_eq!(self.look().await.table, Some(table), "and changes nothing");
    }

    async fn draining_is_marked_once(&self) {
        let mut empty = self.table(8);
        empty.endpoints[0].backends.clear();
        assert_eq!(self.target.route(&empty).await, Ok(()));
        let id = self.instance().id;
        assert_eq!(self.target.drain(&id).await, Ok(()));
        let since = self.ready().await.draining_since;
        assert!(since.is_some(), "draining is seen");
        assert_eq!(self.target.drain(&id).await, Ok(()));
        assert_eq!(self.ready().await.draining_since, since, "the first mark stays");
    }

    async fn all_goes_without_a_trace(&self) {
        let instance = Doomed::Instance(self.instance().id, Evidence::None);
        let network = Doomed::Network(self.network().id);
        assert_eq!(self.target.destroy(&instance).await, Ok(()));
        let nothing = RouteTable { epoch: 9, ..RouteTable::empty(self.subject.stack.clone()) };
        assert_eq!(self.target.route(&nothing).await, Ok(()));
        assert_eq!(self.target.destroy(&network).await, Ok(()));
        for doomed in [instance, network] {
            assert_eq!(self.target.destroy(&doomed).await, Ok(()), "ending twice succeeds");
        }
        self.nothing_is_there().await;
    }

    async fn look(&self) -> Measured {
        let seen = self.target.observe(&self.subject.stack, &self.probes()).await;
        seen.expect("a target can be looked at")
    }

    /// The instance, once it is ready.
    async fn ready(&self) -> ObservedInstance {
        let wait = async {
            loop {
                let seen = self.look().await.instances;
                assert_eq!(seen.len(), 1, "{seen:?}");
                if matches!(seen[0].health, Verdict::Ready { .. }) {
                    return seen[0].clone();
                }
                assert!(seen[0].is_running(), "it has ended: {seen:?}");
                self.target.changed(&self.subject.stack).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("an instance gets ready, and is told of")
    }

    fn probes(&self) -> Probes {
        let health = self.subject.server.policy.health.clone();
        Arc::new([(self.instance().digest, health)].into())
    }

    fn network(&self) -> NetworkCreation {
        NetworkCreation {
            id: id("front-1"),
            stack: self.subject.stack.clone(),
            component: component("network.front"),
            digest: Digest::of(b"front"),
            generation: 1,
            identity: kiln_model::spec::network::NetworkIdentity {
                cidr: "10.199.0.0/24".parse().expect("a range"),
                egress: Vec::new(),
            },
        }
    }

    fn instance(&self) -> InstanceCreation {
        InstanceCreation {
            id: id("web-1"),
            stack: self.subject.stack.clone(),
            component: component("server.web"),
            digest: Digest::of(b"web"),
            generation: 1,
            network: self.network().id,
            network_identity: self.network().identity,
            address: Ipv4Addr::new(10, 199, 0, 200),
            image: self.subject.image,
            demands: kiln_model::trust::Demands::default(),
            server: self.subject.server.clone(),
            data: None,
        }
    }

    fn table(&self, epoch: u64) -> RouteTable {
        let instance = self.instance();
        let backend = Backend {
            instance: instance.id,
            network: instance.network.clone(),
            address: std::net::SocketAddrV4::new(instance.address, self.subject.port),
            weight: 100,
        };
        let endpoint = EndpointRoute {
            component: component("endpoint.shop"),
            listen: self.subject.listen,
            protocol: Protocol::Http,
            to: instance.component,
            backends: vec![backend],
            sleeps: false,
            rules: Vec::new(),
            handling: kiln_model::handling::Handling::default(),
        };
        let network = NetworkRoute {
            network: instance.network,
            resolver: instance.network_identity.resolver(),
            services: Vec::new(),
            clients: std::collections::BTreeMap::new(),
            forward_names: false,
        };
        RouteTable {
            stack: self.subject.stack.clone(),
            epoch,
            endpoints: vec![endpoint],
            networks: vec![network],
            splits: Vec::new(),
            databases: Vec::new(),
        }
    }
}

fn id(text: &str) -> InstanceId {
    text.parse().expect("an id")
}

fn component(text: &str) -> ComponentId {
    text.parse().expect("a component")
}

/// Runs the suite of stores against one that is empty, and that `reopen` opens again.
pub fn store<S: crate::Store>(reopen: impl Fn() -> S) {
    use crate::journal::{Entry, Event};
    use crate::store::Write;
    use kiln_model::generation::Generation;
    use kiln_model::quantity::Timestamp;

    let stack: StackName = "shop".parse().expect("a name");
    let store = reopen();
    let numbers = |store: &S| store.numbers(&stack).expect("numbers can be read");
    assert_eq!(numbers(&store), Vec::<u64>::new(), "a new store is empty");
    let generation = |number| Arc::new(Generation { number, ..Generation::none(stack.clone()) });
    let entry = |at, event| Write::Entry(Entry { at: Timestamp(at), event });
    let committed = |number| Event::Committed { generation: number, deadline: Timestamp(9) };
    let writes = [Write::Generation(generation(1)), entry(1, committed(1))];
    store.append(&stack, &crate::actor::Actor::Keeper, &writes).expect("a generation can be added");
    let twice = store.append(
        &stack,
        &crate::actor::Actor::Keeper,
        &[entry(2, Event::Resumed), writes[0].clone()],
    );
    assert!(twice.is_err(), "a generation is never replaced");
    let made = Event::Made {
        component: component("server.web"),
        instance: id("web-1"),
        because: "it is missing".to_owned(),
        grows: false,
    };
    let second = [entry(3, made.clone()), Write::Generation(generation(2)), entry(4, committed(2))];
    store.append(&stack, &crate::actor::Actor::Keeper, &second).expect("and another");
    drop(store);
    let store = reopen();
    assert_eq!(numbers(&store), [1, 2], "what was added is still there");
    let read = store.generation(&stack, 2).expect("it can be read").expect("it is there");
    assert_eq!(*read, *generation(2));
    assert_eq!(store.generation(&stack, 3).expect("a look"), None);
    let events = |since| {
        let entries = store.journal(&stack, Timestamp(since)).expect("the journal can be read");
        entries.into_iter().map(|e| e.event).collect::<Vec<_>>()
    };
    assert_eq!(events(0), [committed(1), made, committed(2)], "all of a write, or nothing");
    assert_eq!(events(4), [committed(1), committed(2)], "what decides is never left out");
    assert_eq!(store.stacks().expect("stacks can be listed"), std::slice::from_ref(&stack));
}
