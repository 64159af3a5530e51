//! Datagrams: each client is led to one instance for as long as it is heard of.
//!
//! Datagrams have no connections, so nothing tells when a client is done: it is forgotten after
//! a time of silence. A client whose instance leaves rotation goes to another one with its next
//! datagram; what the old one still answers is passed on for a moment.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::clock::now_ms;
use crate::connection::Shared;
use crate::http::limits::Bounds;
use crate::listener::{Phase, closing, overdue};
use crate::load::{InFlight, Unit, severed};
use crate::route::Route;
use crate::stats::{Counters, Going};
use crate::table::{EndpointId, ListenKey};

/// The longest datagram (RFC 768, less nothing: larger ones cannot exist).
const DATAGRAM: usize = 65_535;

/// Clients of one endpoint that are remembered at a time; each takes a descriptor.
const CLIENTS: usize = 4096;

/// How long a client's old instance may still answer.
const GRACE: Duration = Duration::from_secs(1);

/// A pause after the socket has reported an error.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

thread_local! {
    /// Clients hold no buffers: each datagram is passed on at once.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; DATAGRAM].into());
}

/// The clients that are remembered.
type Clients = Arc<Mutex<HashMap<SocketAddr, Arc<Flow>>>>;

/// A client and its instance.
#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    in_flight: InFlight,
    _going: Option<Going>,
    /// When the last datagram went either way.
    last_ms: AtomicU64,
}

/// A running UDP listener. Dropping it without [`Datagrams::close`] closes it at once.
#[derive(Debug)]
pub(crate) struct Datagrams {
    address: SocketAddr,
    socket: Arc<std::net::UdpSocket>,
    phase: watch::Sender<Phase>,
}

impl Datagrams {
    pub(crate) fn start(
        socket: std::net::UdpSocket,
        shared: &Arc<Shared>,
        key: &ListenKey,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let socket = Arc::new(socket);
        let phase = watch::Sender::new(Phase::Open);
        let task = serve(socket.try_clone()?, Arc::clone(shared), key.clone(), phase.subscribe());
        shared.workers.first().spawn(async move {
            if let Err(error) = task.await {
                eprintln!("kiln gateway: datagrams at {address} are not served any more: {error}");
            }
        });
        Ok(Self { address, socket, phase })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn socket(&self) -> &std::net::UdpSocket {
        &self.socket
    }

    /// Takes no datagrams any more; answers are passed on for at most `bound`.
    pub(crate) fn close(self, bound: Duration) {
        self.phase.send_replace(Phase::Closing(Instant::now() + bound.min(GRACE)));
    }

    /// Leaves the socket to others; answers are passed on while clients are remembered.
    pub(crate) fn leave(self, bound: Duration) -> watch::Sender<Phase> {
        self.phase.send_replace(Phase::Leaving(Instant::now() + bound.min(GRACE)));
        self.phase
    }
}

async fn serve(
    socket: std::net::UdpSocket,
    shared: Arc<Shared>,
    key: ListenKey,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let clients = Clients::default();
    let mut buffer = vec![0; DATAGRAM];
    let flows_phase = phase.clone();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            _phase = closing(&mut phase) => return Ok(()),
        };
        let Ok((length, client)) = received else {
            // An earlier answer did not arrive, or memory is short; the socket stays good.
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        let flow = known(&clients, client);
        let flow = match flow {
            Some(flow) => flow,
            None => match begin(&socket, &shared, &key, &clients, client, &flows_phase) {
                Some(flow) => flow,
                None => continue,
            },
        };
        flow.last_ms.store(now_ms(), Relaxed);
        // A datagram that does not fit into the socket's buffer is lost, as datagrams are.
        let _ = rustix::net::send(&flow.socket, &buffer[..length], SendFlags::DONTWAIT);
    }
}

fn lock(clients: &Clients) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Flow>>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The flow of a client, as long as its instance is in rotation.
fn known(clients: &Clients, client: SocketAddr) -> Option<Arc<Flow>> {
    let flow = Arc::clone(lock(clients).get(&client)?);
    (!flow.in_flight.load().is_draining()).then_some(flow)
}

/// Leads a client to an instance; `None` where there is none, or nothing to hold it.
fn begin(
    socket: &Arc<UdpSocket>,
    shared: &Arc<Shared>,
    key: &ListenKey,
    clients: &Clients,
    client: SocketAddr,
    phase: &watch::Receiver<Phase>,
) -> Option<Arc<Flow>> {
    let (route, bounds) = {
        let snapshot = shared.current.load();
        let endpoint = snapshot.endpoint_at(key)?;
        endpoint.id.counters.connection();
        (Route::Endpoint(Arc::clone(&endpoint.id), endpoint.protocol), endpoint.bounds)
    };
    let found = if lock(clients).len() < CLIENTS { connect(shared, &route, client) } else { None };
    let Some(flow) = found else {
        route.endpoint().iter().for_each(|endpoint| endpoint.counters.error());
        return None;
    };
    let flow = Arc::new(flow);
    lock(clients).insert(client, Arc::clone(&flow));
    let answers = Answers {
        socket: Arc::clone(socket),
        clients: Arc::clone(clients),
        client,
        bounds,
        _endpoint: route.endpoint().cloned(),
    };
    let place = shared.workers.place();
    let (passed, phase) = (Arc::clone(&flow), phase.clone());
    shared.workers.first().spawn(async move {
        answers.pass_on(&passed, phase).await;
        drop(place.active);
    });
    Some(flow)
}

fn connect(shared: &Shared, route: &Route, client: SocketAddr) -> Option<Flow> {
    let way = route.way(shared, client.ip(), None).unwrap_or_default();
    way.counters.iter().for_each(|counters| counters.connection());
    let Some((peer, in_flight)) = route.pick(shared, &way, None, Unit::Connection) else {
        // Datagrams are not held: clients send them again.
        way.gate.iter().for_each(|gate| gate.ask());
        way.counters.iter().for_each(|counters| counters.error());
        return None;
    };
    let socket = peer.datagrams().and_then(UdpSocket::from_std).ok()?;
    let going = way.counters.as_ref().map(Counters::begin);
    Some(Flow { socket, in_flight, _going: going, last_ms: AtomicU64::new(now_ms()) })
}

/// The way back to one client.
struct Answers {
    socket: Arc<UdpSocket>,
    clients: Clients,
    client: SocketAddr,
    bounds: Bounds,
    _endpoint: Option<Arc<EndpointId>>,
}

impl Answers {
    async fn pass_on(&self, flow: &Arc<Flow>, mut phase: watch::Receiver<Phase>) {
        let mut severance = flow.in_flight.load().severance();
        tokio::select! {
            () = self.until_silent(flow) => {}
            () = severed(&mut severance) => {}
            () = overdue(&mut phase) => {}
        }
        let mut clients = lock(&self.clients);
        if clients.get(&self.client).is_some_and(|present| Arc::ptr_eq(present, flow)) {
            clients.remove(&self.client);
        }
    }

    /// Passes on what has come; returns whether the instance is there.
    fn pass_queued(&self, flow: &Flow) -> bool {
        SCRATCH.with_borrow_mut(|buffer| {
            loop {
                match flow.socket.try_recv(buffer) {
                    Ok(length) => {
                        flow.last_ms.store(now_ms(), Relaxed);
                        // What does not fit into the socket's buffer is lost, as datagrams are.
                        let (socket, answer) = (&self.socket, &buffer[..length]);
                        let flags = SendFlags::DONTWAIT;
                        let _ = rustix::net::sendto(socket, answer, flags, &self.client);
                    }
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
        })
    }

    async fn until_silent(&self, flow: &Flow) {
        loop {
            // Looked at often enough to see that the instance leaves.
            let silence = self.bounds.silence.min(GRACE);
            if timeout(silence, flow.socket.readable()).await.is_ok() && !self.pass_queued(flow) {
                // Nobody listens there at present: what comes next may arrive.
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            let silent = now_ms().saturating_sub(flow.last_ms.load(Relaxed));
            let limit =
                if flow.in_flight.load().is_draining() { GRACE } else { self.bounds.silence };
            if u128::from(silent) >= limit.as_millis() {
                return;
            }
        }
    }
}
