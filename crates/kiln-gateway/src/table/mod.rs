//! The route tables in the form in which requests read them.
//!
//! All tables together are one immutable [`Snapshot`], replaced as a whole by one atomic
//! exchange: nobody can see the listeners of one table with the backends of another.

mod compile;
mod registry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::route::{Client, Protocol, RouteTable};

use crate::balance::Choices;
use crate::peer::Peer;
use crate::stats::EndpointStats;

pub(crate) use compile::compile;
pub(crate) use registry::Registry;

/// The snapshot that is current, for everyone.
pub(crate) type Current = ArcSwap<Snapshot>;

/// What tells listeners apart. An endpoint keeps its listener as long as this stays the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ListenKey {
    /// An address with a port, whoever asks for it.
    Fixed(SocketAddr),
    /// A port that the kernel chooses, for this endpoint alone.
    Chosen(StackName, ComponentId, SocketAddr),
}

impl ListenKey {
    pub(crate) fn new(stack: &StackName, component: &ComponentId, listen: SocketAddr) -> Self {
        if listen.port() == 0 {
            ListenKey::Chosen(stack.clone(), component.clone(), listen)
        } else {
            ListenKey::Fixed(listen)
        }
    }

    /// The address as it was asked for.
    pub(crate) fn listen(&self) -> SocketAddr {
        match self {
            ListenKey::Fixed(listen) | ListenKey::Chosen(_, _, listen) => *listen,
        }
    }
}

/// Everything that the gateway does, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    stacks: BTreeMap<StackName, Arc<StackView>>,
    endpoints: HashMap<ListenKey, Arc<Endpoint>>,
    networks: HashMap<InstanceId, Arc<Network>>,
}

/// One stack's table and what was made of it.
#[derive(Debug)]
pub(crate) struct StackView {
    pub(crate) table: RouteTable,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) networks: Vec<Arc<Network>>,
    pub(crate) peers: Vec<Arc<Peer>>,
}

/// A listener on the host and where its traffic goes.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) id: Arc<EndpointId>,
    pub(crate) protocol: Protocol,
    pub(crate) backends: Choices,
}

/// What a client's connection keeps of the endpoint that accepted it. It names no instance, so
/// a connection that stays open holds nothing of the instances that have served it.
#[derive(Debug)]
pub(crate) struct EndpointId {
    pub(crate) key: ListenKey,
    pub(crate) stack: StackName,
    pub(crate) component: ComponentId,
    pub(crate) stats: Arc<EndpointStats>,
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
    pub(crate) clients: BTreeSet<Ipv4Addr>,
    /// By port, for the ports that speak HTTP.
    pub(crate) http: BTreeMap<u16, Choices>,
    /// For all other ports: peers without a port of their own.
    pub(crate) bytes: Choices,
}

impl Snapshot {
    /// This snapshot with `view` in place of what its stack had before.
    pub(crate) fn with(&self, view: Arc<StackView>) -> Self {
        let mut stacks = self.stacks.clone();
        // An empty table stays: its epoch is known for as long as the gateway runs.
        stacks.insert(view.table.stack.clone(), view);
        let mut endpoints = HashMap::new();
        let mut networks = HashMap::new();
        for view in stacks.values() {
            endpoints.extend(view.endpoints.iter().map(|e| (e.id.key.clone(), Arc::clone(e))));
            networks.extend(view.networks.iter().map(|n| (n.id.clone(), Arc::clone(n))));
        }
        Self { stacks, endpoints, networks }
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
