//! What outlives a table: the load of an instance, its kept connections, an endpoint's
//! counters. A new table that names the same thing continues with it.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_netns::Namespace;

use crate::control::Refusal;
use crate::events::Events;
use crate::load::Load;
use crate::peer::Peer;
use crate::stats::EndpointStats;

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
    stats: HashMap<(StackName, ComponentId), Weak<EndpointStats>>,
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
            stats: HashMap::new(),
        }
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

    /// An endpoint's counters.
    pub(crate) fn stats(
        &mut self,
        stack: &StackName,
        component: &ComponentId,
    ) -> Arc<EndpointStats> {
        let key = (stack.clone(), component.clone());
        if let Some(stats) = self.stats.get(&key).and_then(Weak::upgrade) {
            return stats;
        }
        let stats = Arc::new(EndpointStats::default());
        self.stats.insert(key, Arc::downgrade(&stats));
        stats
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

    /// Forgets the names of what is gone.
    pub(crate) fn tidy(&mut self) {
        self.loads.retain(|_, load| load.strong_count() > 0);
        self.peers.retain(|_, peer| peer.strong_count() > 0);
        self.namespaces.retain(|_, namespace| namespace.strong_count() > 0);
        self.stats.retain(|_, stats| stats.strong_count() > 0);
    }

    fn load(&mut self, instance: &InstanceId) -> Arc<Load> {
        if let Some(load) = self.find_load(instance) {
            return load;
        }
        let load = Arc::new(Load::new(instance.clone(), self.events.clone()));
        self.loads.insert(instance.clone(), Arc::downgrade(&load));
        load
    }
}
