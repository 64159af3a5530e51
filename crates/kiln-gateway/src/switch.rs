//! The change from one table to the next: all of it or nothing.
//!
//! The order is what makes it safe. Everything that can fail comes first and touches nothing
//! that serves: sockets are bound, namespaces opened. Then the snapshot is exchanged. Only
//! then old listeners close, kept connections to retired instances end and those instances
//! are marked as draining.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::route::RouteTable;
use tokio::sync::watch;

use crate::connection::{self, Door, Shared};
use crate::control::{Applied, Bound, EndpointStatus, InstanceTraffic, Refusal};
use crate::events::Events;
use crate::listener::holder::holder_of;
use crate::listener::inside::{BoundInside, Inside};
use crate::listener::{Listener, socket};
use crate::load::Load;
use crate::table::{Endpoint, ListenKey, Registry, Snapshot, StackView, compile};

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
}

/// Owns the listeners and is the only one to exchange the snapshot.
#[derive(Debug)]
pub(crate) struct Switch {
    shared: Arc<Shared>,
    registry: Registry,
    listeners: HashMap<ListenKey, Listener>,
    inside: HashMap<InstanceId, Inside>,
    purpose: watch::Sender<Purpose>,
}

/// What was bound for a table that is not in force yet. Dropping it releases everything.
#[derive(Default)]
struct Prepared {
    listeners: Vec<(ListenKey, TcpListener)>,
    inside: Vec<(InstanceId, BoundInside)>,
}

impl Switch {
    pub(crate) fn new(root: PathBuf, shared: Arc<Shared>, events: Events) -> Self {
        let registry = Registry::new(root, shared.workers.count(), events);
        let purpose = watch::Sender::new(Purpose::Awaited);
        Self { shared, registry, listeners: HashMap::new(), inside: HashMap::new(), purpose }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn purpose(&self) -> watch::Receiver<Purpose> {
        self.purpose.subscribe()
    }

    /// Puts a table in force, or says why not and changes nothing.
    pub(crate) fn set_table(&mut self, table: RouteTable) -> Result<Applied, Refusal> {
        if self.is_ending() {
            return Err(Refusal::Ending);
        }
        let before = self.shared.current.load_full();
        let stack = table.stack.clone();
        if !is_newer(before.stack(&stack).map(|view| &view.table), &table)? {
            return Ok(self.applied(&before, &stack));
        }
        self.registry.tidy();
        let view = Arc::new(compile(table, &mut self.registry)?);
        let after = Arc::new(before.with(Arc::clone(&view)));
        let prepared = self.prepare(&before, &after, &view)?;
        self.exchange(&before, after, prepared);
        Ok(self.applied(&self.shared.current.load(), &stack))
    }

    /// Binds what the new table needs and the present one has not.
    fn prepare(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        view: &StackView,
    ) -> Result<Prepared, Refusal> {
        let mut prepared = Prepared::default();
        for endpoint in &view.endpoints {
            if let Some(holder) = before.endpoint_at(&endpoint.id.key)
                && holder.id.stack != endpoint.id.stack
            {
                let holder = format!("{} of stack {}", holder.id.component, holder.id.stack);
                return Err(port_taken(endpoint, Some(holder)));
            }
            if !self.listeners.contains_key(&endpoint.id.key) {
                let listener = self.bind(endpoint, after)?;
                prepared.listeners.push((endpoint.id.key.clone(), listener));
            }
        }
        for network in &view.networks {
            if !self.inside.contains_key(&network.id) {
                let namespace = self.registry.namespace(&network.id)?;
                let bound = BoundInside::bind(network, namespace)?;
                prepared.inside.push((network.id.clone(), bound));
            }
        }
        Ok(prepared)
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

    /// The part that cannot fail.
    fn exchange(&mut self, before: &Snapshot, after: Arc<Snapshot>, prepared: Prepared) {
        for peer in after.peers() {
            peer.load().restore();
            peer.pool().reopen();
        }
        self.shared.current.store(Arc::clone(&after));
        self.start(prepared);
        self.close_removed(&after);
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
        for (id, bound) in prepared.inside {
            match bound.start(&id, &self.shared) {
                Ok(inside) => drop(self.inside.insert(id, inside)),
                Err(error) => eprintln!("kiln gateway: a listener has no address: {error}"),
            }
        }
    }

    fn close_removed(&mut self, after: &Snapshot) {
        let gone = |key: &ListenKey| after.endpoint_at(key).is_none();
        for (_, listener) in self.listeners.extract_if(|key, _| gone(key)) {
            listener.close(DRAIN_BOUND);
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
    pub(crate) fn sever(&self, instance: &InstanceId) -> Option<Arc<Load>> {
        let load = self.registry.find_load(instance)?;
        load.sever();
        Some(load)
    }

    pub(crate) fn is_ending(&self) -> bool {
        *self.purpose.borrow() == Purpose::Ending
    }

    /// Takes no tables and no connections any more; those that are open have `DRAIN_BOUND`.
    pub(crate) fn end(&mut self) {
        self.purpose.send_replace(Purpose::Ending);
        for (_, listener) in self.listeners.drain() {
            listener.close(DRAIN_BOUND);
        }
        for (_, inside) in self.inside.drain() {
            inside.close(DRAIN_BOUND);
        }
    }

    /// Ends if there is still nothing to serve; says whether it did.
    pub(crate) fn end_if_idle(&mut self) -> bool {
        let idle = *self.purpose.borrow() != Purpose::Serving;
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
            InstanceTraffic { instance: load.instance().clone(), requests, connections, draining }
        };
        self.registry.loads().into_iter().map(traffic).collect()
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointStatus> {
        let snapshot = self.snapshot();
        let status = |endpoint: &Arc<Endpoint>| EndpointStatus {
            stack: endpoint.id.stack.clone(),
            bound: self.bound(endpoint),
            counters: endpoint.id.stats.read(),
        };
        snapshot.stacks().flat_map(|view| &view.endpoints).map(status).collect()
    }

    fn bound(&self, endpoint: &Arc<Endpoint>) -> Bound {
        let listen = endpoint.id.key.listen();
        let address = self.listeners.get(&endpoint.id.key).map_or(listen, Listener::address);
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
    let serving: BTreeSet<&InstanceId> = after.peers().map(|peer| peer.load().instance()).collect();
    for peer in before.peers() {
        if !stay.contains(&Arc::as_ptr(peer)) {
            peer.pool().close();
        }
        if !serving.contains(peer.load().instance()) && !peer.load().is_draining() {
            peer.load().drain();
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
