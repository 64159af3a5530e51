//! The route tables in the form in which requests read them.
//!
//! All tables together are one immutable [`Snapshot`], replaced as a whole by one atomic
//! exchange: nobody can see the listeners of one table with the backends of another.

mod compile;
mod registry;
pub(crate) mod router;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use kiln_model::handling::{HashKey, Limits};
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::route::{Client, EndpointRoute, Protocol, RouteTable};
use rustc_hash::FxHashMap;

use serde::{Deserialize, Serialize};

use crate::balance::split::Backends;
use crate::gate::Gate;
use crate::http::limits::Bounds;
use crate::load::Load;
use crate::peer::Peer;
use crate::postgres;
use crate::stats::Counters;
use crate::tls::{self, Kept};

pub(crate) use compile::compile;
pub(crate) use registry::Registry;
use router::{RouteKey, Router};

/// The snapshot that is current, for everyone.
pub(crate) type Current = ArcSwap<Snapshot>;

/// What tells listeners apart. An endpoint keeps its listener as long as this stays the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum ListenKey {
    /// An address with a port, whoever asks for it.
    Fixed(SocketAddr),
    /// The same for datagrams, which have ports of their own.
    Datagrams(SocketAddr),
    /// A port that the kernel chooses, for this endpoint alone.
    Chosen(StackName, ComponentId, SocketAddr),
}

impl ListenKey {
    pub(crate) fn new(stack: &StackName, route: &EndpointRoute) -> Self {
        let (component, listen) = (&route.component, route.listen);
        if route.protocol == Protocol::Udp {
            ListenKey::Datagrams(listen)
        } else if listen.port() == 0 {
            ListenKey::Chosen(stack.clone(), component.clone(), listen)
        } else {
            ListenKey::Fixed(listen)
        }
    }

    /// The address as it was asked for.
    pub(crate) fn listen(&self) -> SocketAddr {
        match self {
            ListenKey::Fixed(listen)
            | ListenKey::Datagrams(listen)
            | ListenKey::Chosen(_, _, listen) => *listen,
        }
    }
}

/// Everything that the gateway does, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    stacks: BTreeMap<StackName, Arc<StackView>>,
    endpoints: FxHashMap<ListenKey, Arc<Endpoint>>,
    networks: HashMap<InstanceId, Arc<Network>>,
}

/// One stack's table and what was made of it.
#[derive(Debug)]
pub(crate) struct StackView {
    pub(crate) table: RouteTable,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) networks: Vec<Arc<Network>>,
    pub(crate) peers: Vec<Arc<Peer>>,
    pub(crate) databases: Vec<Database>,
}

/// A database: its gate, and what that is told when the table is in force.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) gate: Arc<postgres::Gate>,
    pub(crate) aim: postgres::Aim,
}

/// A listener on the host and where its traffic goes.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) id: Arc<EndpointId>,
    pub(crate) protocol: Protocol,
    /// The endpoint's side of TLS, where it speaks it.
    pub(crate) tls: Option<tls::Side>,
    /// The certificates of it.
    pub(crate) certificates: Vec<Arc<Kept>>,
    /// What connections may ask that are accepted from now on.
    pub(crate) bounds: Bounds,
    /// By what clients are told apart, where that is asked for.
    pub(crate) sticky: Option<HashKey>,
    pub(crate) proxy_protocol: bool,
    pub(crate) access_log: bool,
    /// The database that it leads to.
    pub(crate) database: Option<Arc<postgres::Gate>>,
    /// Requests that go elsewhere.
    pub(crate) router: Router,
    /// All others.
    pub(crate) main: Arc<Branch>,
}

/// The instances that serve one route, and what is counted of it.
#[derive(Debug)]
pub(crate) struct Branch {
    /// `None` for the endpoint's own.
    pub(crate) key: Option<Arc<RouteKey>>,
    pub(crate) to: ComponentId,
    pub(crate) backends: Backends,
    /// Whether the server has no instance while nobody asks for it.
    pub(crate) sleeps: bool,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
}

impl Endpoint {
    /// All routes, the endpoint's own first.
    pub(crate) fn branches(&self) -> impl Iterator<Item = &Arc<Branch>> {
        std::iter::once(&self.main).chain(self.router.branches())
    }

    /// The route with this key, for a request that goes on by another table than it began.
    pub(crate) fn branch(&self, key: Option<&RouteKey>) -> Option<&Arc<Branch>> {
        self.branches().find(|branch| branch.key.as_deref() == key)
    }
}

#[cfg(test)]
impl Branch {
    pub(crate) fn for_test(key: &RouteKey) -> Self {
        Self {
            key: Some(Arc::new(key.clone())),
            to: "server.web".parse().unwrap(),
            backends: Backends::default(),
            sleeps: false,
            gate: Arc::default(),
            counters: Arc::default(),
        }
    }
}

/// What a client's connection keeps of the endpoint that accepted it. It names no instance, so
/// a connection that stays open holds nothing of the instances that have served it.
#[derive(Debug)]
pub(crate) struct EndpointId {
    pub(crate) key: ListenKey,
    pub(crate) stack: StackName,
    pub(crate) component: ComponentId,
    /// Of the endpoint as a whole.
    pub(crate) counters: Arc<Counters>,
}

impl EndpointId {
    /// What its access log is called.
    pub(crate) fn log_name(&self) -> String {
        format!("{}.{}", self.stack, self.component.host_name())
    }
}

/// A network and what the gateway does inside it.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) id: InstanceId,
    pub(crate) resolver: Ipv4Addr,
    pub(crate) clients: BTreeMap<Ipv4Addr, Client>,
    pub(crate) forward_names: bool,
    pub(crate) services: HashMap<Ipv4Addr, Service>,
}

/// A component behind its stable address.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) component: ComponentId,
    pub(crate) clients: BTreeSet<Ipv4Addr>,
    /// By port, for the ports that speak HTTP.
    pub(crate) http: BTreeMap<u16, Backends>,
    /// For all other ports: peers without a port of their own.
    pub(crate) bytes: Backends,
    /// The gate, where it is a database.
    pub(crate) database: Option<Arc<postgres::Gate>>,
    pub(crate) sleeps: bool,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
}

impl Snapshot {
    /// This snapshot with `view` in place of what its stack had before.
    pub(crate) fn with(&self, view: Arc<StackView>) -> Self {
        let mut stacks = self.stacks.clone();
        // An empty table stays: its epoch is known for as long as the gateway runs.
        stacks.insert(view.table.stack.clone(), view);
        let mut endpoints = FxHashMap::default();
        let mut networks = HashMap::new();
        for view in stacks.values() {
            endpoints.extend(view.endpoints.iter().map(|e| (e.id.key.clone(), Arc::clone(e))));
            networks.extend(view.networks.iter().map(|n| (n.id.clone(), Arc::clone(n))));
        }
        Self { stacks, endpoints, networks }
    }

    /// Tells the gates of all routes and services how many instances they have now, and what
    /// limits; with `empty`, only those that have none.
    pub(crate) fn set_gates(&self, empty: bool) {
        let concerned = |choices: &Backends| !empty || choices.len() == 0;
        for view in self.stacks.values() {
            let limits = view.table.endpoints.iter().map(|route| &route.handling.limits);
            for (endpoint, limits) in view.endpoints.iter().zip(limits) {
                for branch in endpoint.branches().filter(|b| concerned(&b.backends)) {
                    branch.gate.set(branch.backends.len(), limits, branch.sleeps);
                }
            }
            let services = view.networks.iter().flat_map(|network| network.services.values());
            for service in services.filter(|s| concerned(&s.bytes)) {
                service.gate.set(service.bytes.len(), &Limits::default(), service.sleeps);
            }
        }
    }

    pub(crate) fn stack(&self, name: &StackName) -> Option<&Arc<StackView>> {
        self.stacks.get(name)
    }

    pub(crate) fn stacks(&self) -> impl Iterator<Item = &Arc<StackView>> {
        self.stacks.values()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.stacks.values().flat_map(|view| &view.peers)
    }

    /// All databases.
    pub(crate) fn databases(&self) -> impl Iterator<Item = (&RouteTable, &Database)> {
        let of = |view| {
            let view: &Arc<StackView> = view;
            view.databases.iter().map(|database| (&view.table, database))
        };
        self.stacks.values().flat_map(of)
    }

    /// What instances have in flight, of all that may receive something new.
    pub(crate) fn loads(&self) -> impl Iterator<Item = &Arc<Load>> {
        let of_databases = self.databases().filter_map(|(_, database)| database.aim.primary());
        self.peers().map(|peer| peer.load()).chain(of_databases)
    }

    /// The endpoint behind a listener; a connection that outlives its listener is served by
    /// the same endpoint at its new address, if there is one.
    pub(crate) fn endpoint(&self, accepted_as: &EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&accepted_as.key).or_else(|| {
            let view = self.stacks.get(&accepted_as.stack)?;
            view.endpoints.iter().find(|endpoint| endpoint.id.component == accepted_as.component)
        })
    }

    pub(crate) fn endpoint_at(&self, key: &ListenKey) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(key)
    }

    pub(crate) fn network(&self, id: &InstanceId) -> Option<&Arc<Network>> {
        self.networks.get(id)
    }

    /// Whether there is nothing to listen for.
    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.networks.is_empty()
    }
}
