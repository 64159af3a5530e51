//! From an accepted connection to the proxy that serves it.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use kiln_model::name::InstanceId;
use kiln_model::route::Protocol;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::balance::Choices;
use crate::http::{self, Version};
use crate::listener::{Phase, socket};
use crate::load::{InFlight, Unit};
use crate::peer::Peer;
use crate::sniff::{self, Sniffed};
use crate::stats::EndpointStats;
use crate::table::{Current, EndpointId, ListenKey, Snapshot};
use crate::tcp;
use crate::worker::{Active, Workers};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) current: Current,
    pub(crate) workers: Workers,
}

/// Where a listener stands.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// On the host.
    Endpoint(ListenKey),
    /// Inside a network.
    Inside(InstanceId),
}

/// An open connection of a client, on its worker.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: usize,
    pub(crate) remote: SocketAddr,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) route: Route,
    /// Counts it as open.
    pub(crate) _active: Active,
}

/// Which backends a connection reaches, by the table that is current when they are asked for.
#[derive(Debug)]
pub(crate) enum Route {
    /// Those of an endpoint, with the protocol by which the connection was accepted.
    Endpoint(Arc<EndpointId>, Protocol),
    /// Those of a component at its stable address, seen from inside a network.
    Service { network: InstanceId, to: SocketAddrV4, http: bool },
}

/// Takes a connection from a listener to a worker.
pub(crate) fn accept(
    shared: &Arc<Shared>,
    door: &Door,
    stream: std::net::TcpStream,
    remote: SocketAddr,
    phase: watch::Receiver<Phase>,
) {
    let place = shared.workers.place();
    let (shared, door) = (Arc::clone(shared), door.clone());
    place.handle.spawn(async move {
        let (worker, active) = (place.worker, place.active);
        let Some(route) = route(&shared.current.load(), &door, &stream, remote) else {
            socket::reset_on_close(&stream);
            return;
        };
        let connection = Connection { shared, worker, remote, phase, route, _active: active };
        // A connection that breaks while it is being set up has nobody left to tell.
        let _ = serve(connection, stream).await;
    });
}

/// What the connection may reach; `None` when nothing.
fn route(
    snapshot: &Snapshot,
    door: &Door,
    stream: &std::net::TcpStream,
    remote: SocketAddr,
) -> Option<Route> {
    match door {
        Door::Endpoint(key) => {
            let endpoint = snapshot.endpoint_at(key)?;
            endpoint.id.stats.connection();
            Some(Route::Endpoint(Arc::clone(&endpoint.id), endpoint.protocol))
        }
        Door::Inside(id) => {
            let to = socket::original_destination(stream).ok()?;
            let service = snapshot.network(id)?.services.get(to.ip())?;
            let IpAddr::V4(client) = remote.ip() else { return None };
            let http = service.http.contains_key(&to.port());
            let route = Route::Service { network: id.clone(), to, http };
            service.clients.contains(&client).then_some(route)
        }
    }
}

async fn serve(connection: Connection, stream: std::net::TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    socket::tune(&stream);
    let protocol = match &connection.route {
        Route::Endpoint(_, protocol) => *protocol,
        Route::Service { http: true, .. } => Protocol::Http,
        Route::Service { http: false, .. } => Protocol::Tcp,
    };
    let sniffed = match protocol {
        Protocol::Tcp => Sniffed::Bytes,
        Protocol::Http | Protocol::Auto => {
            let mut phase = connection.phase.clone();
            tokio::select! {
                sniffed = sniff::first_bytes(&stream, protocol) => sniffed?,
                // Nothing has been asked yet, so nothing is lost.
                _deadline = crate::listener::closing(&mut phase) => return Ok(()),
            }
        }
    };
    match sniffed {
        Sniffed::Nothing => {}
        Sniffed::Http1 => http::serve(connection, stream, Version::One).await,
        Sniffed::Http2 => http::serve(connection, stream, Version::Two).await,
        Sniffed::Bytes => tcp::serve(connection, stream).await,
    }
    Ok(())
}

impl Route {
    /// An instance for the next request or connection, counted as in flight.
    pub(crate) fn pick(
        &self,
        shared: &Shared,
        avoid: Option<&Arc<Peer>>,
        unit: Unit,
    ) -> Option<(Arc<Peer>, InFlight)> {
        loop {
            let snapshot = shared.current.load();
            let peer = self.choices(&snapshot)?.pick(avoid)?;
            // An instance starts to drain after it has left the current table, so looking
            // again finds a table without it.
            if let Some(in_flight) = peer.load().enter(unit) {
                return Some((Arc::clone(peer), in_flight));
            }
        }
    }

    /// The port for backends that have none of their own.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Route::Endpoint(..) => 0,
            Route::Service { to, .. } => to.port(),
        }
    }

    /// The counters to which the connection adds.
    pub(crate) fn stats(&self) -> Option<&EndpointStats> {
        match self {
            Route::Endpoint(endpoint, _) => Some(&endpoint.stats),
            Route::Service { .. } => None,
        }
    }

    fn choices<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Choices> {
        match self {
            Route::Endpoint(endpoint, _) => Some(&snapshot.endpoint(endpoint)?.backends),
            Route::Service { network, to, http } => {
                let service = snapshot.network(network)?.services.get(to.ip())?;
                // A connection that began as HTTP stays with backends that speak it.
                if *http { service.http.get(&to.port()) } else { Some(&service.bytes) }
            }
        }
    }
}
