//! What outlives a table: the load of an instance, its kept connections, an endpoint's
//! counters. A new table that names the same thing continues with it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_netns::Namespace;

use crate::control::Refusal;
use crate::events::Events;
use crate::gate::Gate;
use crate::load::{InFlight, Load, Unit};
use crate::peer::Peer;
use crate::postgres;
use crate::stats::Counters;
use crate::table::router::RouteKey;
use crate::tls::Keeper;

/// An endpoint as a whole, its own route (`Some(None)`), or one of its others.
type RouteId = (StackName, ComponentId, Option<Option<RouteKey>>);

type PeerKey = (InstanceId, InstanceId, SocketAddrV4);

/// Finds what exists and makes what does not. Nothing is kept alive from here, so a namespace
/// is let go of when the last table, request and connection that used it has ended.
#[derive(Debug)]
pub(crate) struct Registry {
    root: PathBuf,
    workers: usize,
    events: Events,
    loads: HashMap<InstanceId, Weak<Load>>,
    peers: HashMap<PeerKey, Weak<Peer>>,
    namespaces: HashMap<InstanceId, Weak<Namespace>>,
    counters: HashMap<RouteId, Weak<Counters>>,
    gates: HashMap<RouteId, Weak<Gate>>,
    databases: BTreeMap<(StackName, ComponentId), Weak<postgres::Gate>>,
    pub(crate) certificates: Keeper,
}

impl Registry {
    pub(crate) fn new(root: PathBuf, workers: usize, events: Events) -> Self {
        Self {
            root,
            workers,
            events,
            loads: HashMap::new(),
            peers: HashMap::new(),
            namespaces: HashMap::new(),
            counters: HashMap::new(),
            gates: HashMap::new(),
            databases: BTreeMap::new(),
            certificates: Keeper::default(),
        }
    }

    /// The root whose gateway this is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The namespace of a network instance.
    pub(crate) fn namespace(&mut self, network: &InstanceId) -> Result<Arc<Namespace>, Refusal> {
        if let Some(namespace) = self.namespaces.get(network).and_then(Weak::upgrade) {
            return Ok(namespace);
        }
        let path = self.root.join("run/net").join(network.as_str());
        let namespace = Namespace::open(&path).map_err(|error| Refusal::NamespaceMissing {
            network: network.clone(),
            path,
            error: error.to_string(),
        })?;
        let namespace = Arc::new(namespace);
        self.namespaces.insert(network.clone(), Arc::downgrade(&namespace));
        Ok(namespace)
    }

    /// An instance at an address and port.
    pub(crate) fn peer(
        &mut self,
        instance: &InstanceId,
        network: &InstanceId,
        address: SocketAddrV4,
    ) -> Result<Arc<Peer>, Refusal> {
        let key = (instance.clone(), network.clone(), address);
        if let Some(peer) = self.peers.get(&key).and_then(Weak::upgrade) {
            return Ok(peer);
        }
        let namespace = self.namespace(network)?;
        let load = self.load(instance);
        let peer = Peer::new(load, network.clone(), namespace, address, self.workers);
        let peer = Arc::new(peer);
        self.peers.insert(key, Arc::downgrade(&peer));
        Ok(peer)
    }

    /// The counters of an endpoint as a whole.
    pub(crate) fn counters(&mut self, stack: &StackName, component: &ComponentId) -> Arc<Counters> {
        let id = (stack.clone(), component.clone(), None);
        found_or_made(&mut self.counters, id)
    }

    /// The counters and the gate of one route of an endpoint.
    pub(crate) fn route(
        &mut self,
        stack: &StackName,
        component: &ComponentId,
        key: Option<&RouteKey>,
    ) -> (Arc<Counters>, Arc<Gate>) {
        let id = (stack.clone(), component.clone(), Some(key.cloned()));
        let gate = found_or_made(&mut self.gates, id.clone());
        (found_or_made(&mut self.counters, id), gate)
    }

    /// The counters and the gate of what reaches a server by its stable address, from whichever
    /// network. Servers and endpoints are of different kinds, so their names never meet.
    pub(crate) fn service(
        &mut self,
        stack: &StackName,
        server: &ComponentId,
    ) -> (Arc<Counters>, Arc<Gate>) {
        let id = (stack.clone(), server.clone(), None);
        let gate = found_or_made(&mut self.gates, id.clone());
        (found_or_made(&mut self.counters, id), gate)
    }

    /// The gate of a database, made where there is none.
    pub(crate) fn database(
        &mut self,
        stack: &StackName,
        component: &ComponentId,
    ) -> Arc<postgres::Gate> {
        let key = (stack.clone(), component.clone());
        if let Some(gate) = self.databases.get(&key).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = postgres::Gate::new(&self.root, stack, component, self.events.clone());
        let gate = Arc::new(gate);
        self.databases.insert(key, Arc::downgrade(&gate));
        gate
    }

    /// All gates of databases that are in a table or have sessions, in order.
    pub(crate) fn databases(&self) -> impl Iterator<Item = Arc<postgres::Gate>> {
        self.databases.values().filter_map(Weak::upgrade)
    }

    /// Where events are sent.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// The loads of all instances that are in a table or have something in flight, by name.
    pub(crate) fn loads(&self) -> Vec<Arc<Load>> {
        let mut loads: Vec<_> = self.loads.values().filter_map(Weak::upgrade).collect();
        loads.sort_by(|a, b| a.instance().cmp(b.instance()));
        loads
    }

    /// The load of one instance, unless there is nothing left of it.
    pub(crate) fn find_load(&self, instance: &InstanceId) -> Option<Arc<Load>> {
        self.loads.get(instance).and_then(Weak::upgrade)
    }

    /// Counts something that another process has in flight to an instance. One that is in no
    /// table here drains.
    pub(crate) fn count_elsewhere(&mut self, instance: &InstanceId) -> InFlight {
        let known = self.find_load(instance);
        let load = self.load(instance);
        let counted = load.carry_on(Unit::Connection);
        if known.is_none() {
            load.drain();
        }
        counted
    }

    /// Forgets the names of what is gone.
    pub(crate) fn tidy(&mut self) {
        self.loads.retain(|_, load| load.strong_count() > 0);
        self.peers.retain(|_, peer| peer.strong_count() > 0);
        self.namespaces.retain(|_, namespace| namespace.strong_count() > 0);
        self.counters.retain(|_, counters| counters.strong_count() > 0);
        self.gates.retain(|_, gate| gate.strong_count() > 0);
        self.databases.retain(|_, gate| gate.strong_count() > 0);
    }

    /// The load of an instance, made where there is none.
    pub(crate) fn load(&mut self, instance: &InstanceId) -> Arc<Load> {
        if let Some(load) = self.find_load(instance) {
            return load;
        }
        let load = Arc::new(Load::new(instance.clone(), self.events.clone()));
        self.loads.insert(instance.clone(), Arc::downgrade(&load));
        load
    }
}

/// What is there, else something new that is forgotten when nobody holds it any more.
fn found_or_made<K: std::hash::Hash + Eq, V: Default>(
    known: &mut HashMap<K, Weak<V>>,
    key: K,
) -> Arc<V> {
    if let Some(found) = known.get(&key).and_then(Weak::upgrade) {
        return found;
    }
    let made = Arc::new(V::default());
    known.insert(key, Arc::downgrade(&made));
    made
}
