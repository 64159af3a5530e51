//! The change from one table to the next: all of it or nothing.
//!
//! The order is what makes it safe. Everything that can fail comes first and touches nothing
//! that serves: sockets are bound, namespaces opened. Then the snapshot is exchanged. Only
//! then old listeners close, kept connections to retired instances end and those instances
//! are marked as draining.

mod databases;
mod leave;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::route::{Protocol, RouteTable};
use tokio::sync::watch;

use crate::connection::{self, Door, Shared};
use crate::control::{
    Applied, Bound, EndpointStatus, InstanceTraffic, Keys, Proof, Refusal, RouteStatus,
    ServerTraffic,
};
use crate::events::Events;
use crate::handover::{Inherited, Offer, Predecessors, SocketName};
use crate::listener::holder::holder_of;
use crate::listener::inside::{BoundInside, Inside};
use crate::listener::{Listener, Phase, socket};
use crate::load::Load;
use crate::table::{Branch, Endpoint, ListenKey, Registry, Snapshot, StackView, compile};
use crate::tls::Kept;
use crate::udp::Datagrams;

/// How long connections of a removed listener may take to finish.
pub(crate) const DRAIN_BOUND: Duration = Duration::from_secs(10);

/// How long connections inside a removed network may take: its instances are gone, and its
/// namespace is to follow.
const INSIDE_BOUND: Duration = Duration::from_millis(100);

/// What the gateway is there for at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// No table has come yet.
    Awaited,
    /// There is something to listen for.
    Serving,
    /// All tables are empty.
    Over,
    /// It was decided to end; no table is taken any more.
    Ending,
    /// Another process has taken over.
    HandedOver,
}

/// Owns the listeners and is the only one to exchange the snapshot.
#[derive(Debug)]
pub(crate) struct Switch {
    shared: Arc<Shared>,
    registry: Registry,
    listeners: HashMap<ListenKey, Listener>,
    datagrams: HashMap<ListenKey, Datagrams>,
    inside: HashMap<InstanceId, Inside>,
    purpose: watch::Sender<Purpose>,
    /// Processes before this one that have something left.
    predecessors: Predecessors,
    /// What ends connections of listeners that were handed over or have moved.
    left: Vec<watch::Sender<Phase>>,
    /// Certificates of the process before this one, until a table names them.
    adopted: Vec<Arc<Kept>>,
    /// What certificate authorities are shown.
    proofs: Vec<Proof>,
}

/// What was bound for a table that is not in force yet. Dropping it releases everything.
#[derive(Default)]
struct Prepared {
    listeners: Vec<(ListenKey, TcpListener)>,
    datagrams: Vec<(ListenKey, UdpSocket)>,
    inside: Vec<(InstanceId, BoundInside)>,
}

impl Switch {
    pub(crate) fn new(root: PathBuf, shared: Arc<Shared>, events: Events) -> Self {
        let registry = Registry::new(root, shared.workers.count(), events);
        let purpose = watch::Sender::new(Purpose::Awaited);
        let predecessors = shared.predecessors.clone();
        Self {
            shared,
            registry,
            listeners: HashMap::new(),
            datagrams: HashMap::new(),
            inside: HashMap::new(),
            purpose,
            predecessors,
            left: Vec::new(),
            adopted: Vec::new(),
            proofs: Vec::new(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn purpose(&self) -> watch::Receiver<Purpose> {
        self.purpose.subscribe()
    }

    /// Puts a table in force, or says why not and changes nothing. `keys` are those that no file
    /// holds.
    pub(crate) fn set_table(&mut self, table: RouteTable, keys: &Keys) -> Result<Applied, Refusal> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let before = self.shared.current.load_full();
        let stack = table.stack.clone();
        if !is_newer(before.stack(&stack).map(|view| &view.table), &table)? {
            return Ok(self.applied(&before, &stack));
        }
        self.registry.tidy();
        let view = Arc::new(compile(table, &mut self.registry, Some(keys))?);
        let after = Arc::new(before.with(Arc::clone(&view)));
        let mut prepared = Prepared::default();
        self.prepare(&before, &after, &view, &mut Inherited::default(), &mut prepared)?;
        self.exchange(&before, after, prepared, Some(&view.table));
        Ok(self.applied(&self.shared.current.load(), &stack))
    }

    /// Shows certificate authorities these proofs and no others.
    pub(crate) fn set_proofs(&mut self, proofs: Vec<Proof>) -> Result<(), Refusal> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        self.shared.proofs.set(&proofs).map_err(|error| Refusal::Malformed { error })?;
        self.proofs = proofs;
        Ok(())
    }

    /// Takes over what another process has offered: all of it, or an error and nothing of it.
    pub(crate) fn inherit(&mut self, mut offer: Offer) -> Result<(), Refusal> {
        for held in &offer.estate.certificates {
            let adopted = self.registry.certificates.adopt(&held.source, held.texts());
            // Kept until the table that names it has been compiled.
            self.adopted.extend(adopted.ok());
        }
        let gates = self.adopt_gates(&offer.estate.gates);
        let before = Arc::new(Snapshot::default());
        let (mut after, mut prepared) = (Arc::clone(&before), Prepared::default());
        for table in std::mem::take(&mut offer.estate.tables) {
            let keys = Keys::default();
            let view = Arc::new(compile(table, &mut self.registry, Some(&keys))?);
            let next = Arc::new(after.with(Arc::clone(&view)));
            self.prepare(&after, &next, &view, &mut offer.sockets, &mut prepared)?;
            after = next;
        }
        self.adopted.clear();
        self.set_proofs(std::mem::take(&mut offer.estate.proofs))?;
        self.exchange(&before, after, prepared, None);
        drop(gates);
        match offer.taken(&mut self.registry) {
            Ok(predecessor) => {
                self.predecessors.add(predecessor);
                self.gather_gates();
            }
            Err(error) => eprintln!("kiln gateway: the process before this one is gone: {error}"),
        }
        Ok(())
    }

    /// Binds what the new table needs and the present one has not.
    fn prepare(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        view: &StackView,
        inherited: &mut Inherited,
        prepared: &mut Prepared,
    ) -> Result<(), Refusal> {
        for endpoint in &view.endpoints {
            let key = &endpoint.id.key;
            if let Some(holder) = before.endpoint_at(key)
                && holder.id.stack != endpoint.id.stack
            {
                let holder = format!("{} of stack {}", holder.id.component, holder.id.stack);
                return Err(port_taken(endpoint, Some(holder)));
            }
            let name = SocketName::Endpoint(key.clone());
            if self.listeners.contains_key(key) || self.datagrams.contains_key(key) {
                continue;
            }
            if endpoint.protocol == Protocol::Udp {
                let socket = match inherited.udp(&name) {
                    Some(socket) => socket,
                    None => socket::host_udp(key.listen())
                        .map_err(|error| cannot_listen(endpoint, &error))?,
                };
                prepared.datagrams.push((key.clone(), socket));
            } else {
                let listener = match inherited.tcp(&name) {
                    Some(listener) => listener,
                    None => self.bind(endpoint, after)?,
                };
                prepared.listeners.push((key.clone(), listener));
            }
        }
        for network in &view.networks {
            if !self.inside.contains_key(&network.id) {
                let namespace = self.registry.namespace(&network.id)?;
                let bound = match BoundInside::inherit(network, &namespace, inherited) {
                    Some(bound) => bound,
                    None => BoundInside::bind(network, namespace)?,
                };
                prepared.inside.push((network.id.clone(), bound));
            }
        }
        Ok(())
    }

    fn bind(&self, endpoint: &Endpoint, after: &Snapshot) -> Result<TcpListener, Refusal> {
        let listen = endpoint.id.key.listen();
        let bound = socket::host_tcp(listen).and_then(|fd| socket::listen(fd, listen));
        let error = match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            bound => return bound.map_err(|error| cannot_listen(endpoint, &error)),
        };
        // The holder may be a listener of this gateway that overlaps and is about to close.
        let leaving = self.listeners.iter().find(|(key, listener)| {
            after.endpoint_at(key).is_none() && listener.address().port() == listen.port()
        });
        if let Some((_, leaving)) = leaving
            && let Ok(fd) = socket::host_tcp(listen)
            && let Ok(bound) = socket::listen_beside(leaving.socket(), fd, listen)
        {
            return Ok(bound);
        }
        Err(cannot_listen(endpoint, &error))
    }

    /// The part that cannot fail. `table` is the one that is new, for processes before this one.
    fn exchange(
        &mut self,
        before: &Snapshot,
        after: Arc<Snapshot>,
        prepared: Prepared,
        table: Option<&RouteTable>,
    ) {
        after.loads().for_each(|load| load.restore());
        after.peers().for_each(|peer| peer.pool().reopen());
        // What a table without an instance holds waits from before the exchange on, so that
        // nothing falls in between.
        after.set_gates(true);
        self.shared.current.store(Arc::clone(&after));
        after.set_gates(false);
        databases::aim(before, &after);
        self.start(prepared);
        self.close_removed(before, &after);
        if let Some(table) = table {
            self.predecessors.follow(table, &mut self.registry);
            self.gather_gates();
        }
        databases::clear(before, &after);
        retire(before, &after);
        self.bound_what_is_left(before, &after);
        self.purpose.send_replace(if after.is_empty() { Purpose::Over } else { Purpose::Serving });
    }

    fn start(&mut self, prepared: Prepared) {
        for (key, listener) in prepared.listeners {
            let shared = Arc::clone(&self.shared);
            let door = Door::Endpoint(key.clone());
            let started = Listener::start(
                listener,
                self.shared.workers.first(),
                move |stream, remote, phase| {
                    connection::accept(&shared, &door, stream, remote, phase);
                },
            );
            match started {
                Ok(listener) => drop(self.listeners.insert(key, listener)),
                Err(error) => eprintln!("kiln gateway: a listener has no address: {error}"),
            }
        }
        for (key, socket) in prepared.datagrams {
            match Datagrams::start(socket, &self.shared, &key) {
                Ok(datagrams) => drop(self.datagrams.insert(key, datagrams)),
                Err(error) => eprintln!("kiln gateway: a socket has no address: {error}"),
            }
        }
        for (id, bound) in prepared.inside {
            match bound.start(&id, &self.shared) {
                Ok(inside) => drop(self.inside.insert(id, inside)),
                Err(error) => eprintln!("kiln gateway: a listener has no address: {error}"),
            }
        }
    }

    fn close_removed(&mut self, before: &Snapshot, after: &Snapshot) {
        let gone = |key: &ListenKey| after.endpoint_at(key).is_none();
        self.left.retain(|phase| phase.receiver_count() > 0);
        for (key, listener) in self.listeners.extract_if(|key, _| gone(key)) {
            let id = before.endpoint_at(&key).map(|endpoint| &endpoint.id);
            if id.is_some_and(|id| after.endpoint(id).is_some()) {
                // It listens elsewhere now: who is about to ask is answered once more.
                self.left.push(listener.leave(DRAIN_BOUND));
            } else {
                listener.close(DRAIN_BOUND);
            }
        }
        for (_, datagrams) in self.datagrams.extract_if(|key, _| gone(key)) {
            datagrams.close(DRAIN_BOUND);
        }
        for (_, inside) in self.inside.extract_if(|id, _| after.network(id).is_none()) {
            inside.close(INSIDE_BOUND);
        }
    }

    /// What is in flight to instances of a removed network gets the usual bound, so that the
    /// network's namespace is let go of even if nobody severs them.
    fn bound_what_is_left(&self, before: &Snapshot, after: &Snapshot) {
        let removed = |id: &InstanceId| before.network(id).is_some() && after.network(id).is_none();
        for peer in before.peers().filter(|peer| removed(peer.network())) {
            let load = Arc::clone(peer.load());
            if load.is_draining() && load.total() > 0 {
                self.shared.workers.first().spawn(async move {
                    tokio::time::sleep(DRAIN_BOUND).await;
                    if load.is_draining() {
                        load.sever();
                    }
                });
            }
        }
    }

    /// Ends everything that is in flight to an instance.
    pub(crate) fn sever(&mut self, instance: &InstanceId) -> Option<Arc<Load>> {
        let load = self.registry.find_load(instance)?;
        load.sever();
        self.predecessors.sever(instance, &mut self.registry);
        Some(load)
    }

    /// Why no request is answered any more, if that is so.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match *self.purpose.borrow() {
            Purpose::Ending => Some(Refusal::Ending),
            Purpose::HandedOver => Some(Refusal::HandedOver),
            Purpose::Awaited | Purpose::Serving | Purpose::Over => None,
        }
    }

    /// Takes no tables and no connections any more; those that are open have `DRAIN_BOUND`.
    pub(crate) fn end(&mut self) {
        self.purpose.send_replace(Purpose::Ending);
        for (_, listener) in self.listeners.drain() {
            listener.close(DRAIN_BOUND);
        }
        for (_, datagrams) in self.datagrams.drain() {
            datagrams.close(DRAIN_BOUND);
        }
        for (_, inside) in self.inside.drain() {
            inside.close(DRAIN_BOUND);
        }
    }

    /// Ends if there is still nothing to serve; says whether it did.
    pub(crate) fn end_if_idle(&mut self) -> bool {
        let idle = !matches!(*self.purpose.borrow(), Purpose::Serving | Purpose::HandedOver);
        if idle {
            self.end();
        }
        idle
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    pub(crate) fn client_connections(&self) -> usize {
        self.shared.workers.open_connections()
    }

    pub(crate) fn instances(&self) -> Vec<InstanceTraffic> {
        let traffic = |load: Arc<Load>| {
            let (requests, connections) = load.in_flight();
            let draining = load.is_draining();
            let answers = load.counters().answers();
            let instance = load.instance().clone();
            InstanceTraffic { instance, requests, connections, draining, answers }
        };
        self.registry.loads().into_iter().map(traffic).collect()
    }

    /// What has come for each server.
    pub(crate) fn servers(&self) -> Vec<ServerTraffic> {
        let mut servers: BTreeMap<(&StackName, &ComponentId), ServerTraffic> = BTreeMap::new();
        let snapshot = self.snapshot();
        for view in snapshot.stacks() {
            let branches = view.endpoints.iter().flat_map(|endpoint| endpoint.branches());
            let branches = branches.map(|b| (&b.to, &b.counters, &b.gate));
            // One server is reached from several networks and counted once.
            let services = view.networks.iter().flat_map(|network| network.services.values());
            let services: BTreeMap<_, _> = services.map(|s| (&s.component, s)).collect();
            let services = services.into_values().map(|s| (&s.component, &s.counters, &s.gate));
            let stack = &view.table.stack;
            for (component, counters, gate) in branches.chain(services) {
                let server = servers.entry((stack, component)).or_insert_with(|| ServerTraffic {
                    stack: stack.clone(),
                    component: component.clone(),
                    arrived: 0,
                    refused: 0,
                    waiting: 0,
                });
                let (arrived, refused) = counters.arrivals();
                server.arrived += arrived;
                server.refused += refused;
                server.waiting += gate.waiting() as u64;
            }
        }
        servers.into_values().collect()
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointStatus> {
        let snapshot = self.snapshot();
        let status = |endpoint: &Arc<Endpoint>| self.endpoint(endpoint);
        snapshot.stacks().flat_map(|view| &view.endpoints).map(status).collect()
    }

    fn endpoint(&self, endpoint: &Arc<Endpoint>) -> EndpointStatus {
        let route = |branch: &Arc<Branch>| {
            let mut counters = branch.counters.read();
            counters.waiting = branch.gate.waiting() as u64;
            let (host, path) = branch.key.as_deref().cloned().unwrap_or_default();
            RouteStatus { host, path, to: branch.to.clone(), counters }
        };
        let routes: Vec<RouteStatus> = endpoint.branches().map(route).collect();
        let mut counters = endpoint.id.counters.read();
        counters.in_flight = routes.iter().map(|route| route.counters.in_flight).sum();
        counters.waiting = routes.iter().map(|route| route.counters.waiting).sum();
        EndpointStatus {
            stack: endpoint.id.stack.clone(),
            bound: self.bound(endpoint),
            counters,
            routes,
            certificates: endpoint.certificates.iter().map(|kept| kept.status()).collect(),
        }
    }

    fn bound(&self, endpoint: &Arc<Endpoint>) -> Bound {
        let (key, listen) = (&endpoint.id.key, endpoint.id.key.listen());
        let address = self.listeners.get(key).map(Listener::address);
        let address = address.or_else(|| self.datagrams.get(key).map(Datagrams::address));
        let address = address.unwrap_or(listen);
        Bound { component: endpoint.id.component.clone(), listen, address }
    }

    fn applied(&self, snapshot: &Snapshot, stack: &StackName) -> Applied {
        let endpoints = snapshot.stack(stack).map_or(&[][..], |view| &view.endpoints);
        let bound = endpoints.iter().map(|endpoint| self.bound(endpoint)).collect();
        let mut draining = BTreeMap::new();
        for load in self.registry.loads() {
            if load.is_draining() && load.total() > 0 {
                draining.insert(load.instance().clone(), load.total());
            }
        }
        Applied { bound, draining }
    }
}

/// Whether the table is to be put in force; the very one that is in force is fine as it is.
fn is_newer(present: Option<&RouteTable>, offered: &RouteTable) -> Result<bool, Refusal> {
    let Some(present) = present else { return Ok(true) };
    let stack = offered.stack.clone();
    match offered.epoch.cmp(&present.epoch) {
        std::cmp::Ordering::Greater => Ok(true),
        std::cmp::Ordering::Equal if offered == present => Ok(false),
        std::cmp::Ordering::Equal => Err(Refusal::EpochTaken { stack, epoch: present.epoch }),
        std::cmp::Ordering::Less => {
            let (present, offered) = (present.epoch, offered.epoch);
            Err(Refusal::EpochTooOld { stack, present, offered })
        }
    }
}

/// Ends what is kept for peers that are in no table any more, and starts to drain instances
/// that are in none.
fn retire(before: &Snapshot, after: &Snapshot) {
    let stay: BTreeSet<_> = after.peers().map(Arc::as_ptr).collect();
    let serving: BTreeSet<&InstanceId> = after.loads().map(|load| load.instance()).collect();
    for peer in before.peers() {
        if !stay.contains(&Arc::as_ptr(peer)) {
            peer.pool().close();
        }
    }
    for load in before.loads() {
        if !serving.contains(load.instance()) && !load.is_draining() {
            load.drain();
        }
    }
}

fn port_taken(endpoint: &Endpoint, holder: Option<String>) -> Refusal {
    let component: ComponentId = endpoint.id.component.clone();
    Refusal::PortTaken { component, listen: endpoint.id.key.listen(), holder }
}

fn cannot_listen(endpoint: &Endpoint, error: &io::Error) -> Refusal {
    let (component, listen) = (endpoint.id.component.clone(), endpoint.id.key.listen());
    match error.kind() {
        io::ErrorKind::AddrInUse => port_taken(endpoint, holder_of(listen)),
        io::ErrorKind::AddrNotAvailable => Refusal::AddressNotAvailable { component, listen },
        _ => Refusal::CannotListen { component, listen, error: error.to_string() },
    }
}
