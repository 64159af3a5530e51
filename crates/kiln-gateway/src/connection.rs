//! From an accepted connection to the proxy that serves it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kiln_model::name::InstanceId;
use kiln_model::route::Protocol;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::access_log::AccessLog;
use crate::client::{Secured, Stream};
use crate::handover::Predecessors;
use crate::http::limits::Bounds;
use crate::http::{self, Version};
use crate::listener::{Phase, closed, socket};
use crate::postgres::{self, Cancels, Gate};
use crate::route::Route;
use crate::sniff::{self, Sniffed};
use crate::table::{Current, Endpoint, ListenKey, Snapshot};
use crate::tls::{self, Agreed};
use crate::worker::{Active, Workers};
use crate::{crowd, tcp};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) current: Current,
    pub(crate) workers: Workers,
    pub(crate) crowd: Arc<crowd::Crowd>,
    pub(crate) log: AccessLog,
    /// What certificate authorities are shown.
    pub(crate) proofs: tls::Proofs,
    /// Keys of sessions with databases.
    pub(crate) cancels: Arc<Cancels>,
    /// Processes before this one that have something left.
    pub(crate) predecessors: Predecessors,
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
    pub(crate) bounds: Bounds,
    /// Whether the client speaks TLS.
    pub(crate) secure: bool,
    /// Counts it as open.
    pub(crate) _active: Active,
    /// Counts it for its address.
    pub(crate) _member: Option<crowd::Member>,
}

/// What a connection is to be, by the table that is current when it is accepted.
struct Plan {
    route: Route,
    protocol: Protocol,
    bounds: Bounds,
    tls: Option<tls::Side>,
    /// The database, where the client speaks the protocol of one.
    database: Option<Arc<Gate>>,
}

/// Takes a connection from a listener to a worker.
pub(crate) fn accept(
    shared: &Arc<Shared>,
    door: &Door,
    stream: std::net::TcpStream,
    remote: SocketAddr,
    phase: watch::Receiver<Phase>,
) {
    let member = match door {
        Door::Endpoint(_) => match shared.crowd.join(remote.ip()) {
            Some(member) => Some(member),
            None => return socket::reset_on_close(&stream),
        },
        Door::Inside(_) => None,
    };
    let place = shared.workers.place();
    let (shared, door) = (Arc::clone(shared), door.clone());
    place.handle.spawn(async move {
        let (worker, active) = (place.worker, place.active);
        let Some(plan) = plan(&shared.current.load(), &door, &stream, remote) else {
            socket::reset_on_close(&stream);
            return;
        };
        let Plan { route, protocol, bounds, tls, database } = plan;
        let connection = Connection {
            shared,
            worker,
            remote,
            phase,
            route,
            bounds,
            secure: tls.is_some(),
            _active: active,
            _member: member,
        };
        // A connection that breaks while it is being set up has nobody left to tell.
        let _ = serve(connection, stream, (protocol, database), tls).await;
    });
}

/// What the connection may reach; `None` when nothing.
fn plan(
    snapshot: &Snapshot,
    door: &Door,
    stream: &std::net::TcpStream,
    remote: SocketAddr,
) -> Option<Plan> {
    match door {
        Door::Endpoint(key) => {
            let endpoint: &Endpoint = snapshot.endpoint_at(key)?;
            endpoint.id.counters.connection();
            let (protocol, bounds) = (endpoint.protocol, endpoint.bounds);
            let route = Route::Endpoint(Arc::clone(&endpoint.id), protocol);
            let (tls, database) = (endpoint.tls.clone(), endpoint.database.clone());
            Some(Plan { route, protocol, bounds, tls, database })
        }
        Door::Inside(id) => {
            let to = socket::original_destination(stream).ok()?;
            let service = snapshot.network(id)?.services.get(to.ip())?;
            let IpAddr::V4(client) = remote.ip() else { return None };
            let http = service.http.contains_key(&to.port());
            let route = Route::Service { network: id.clone(), to, http };
            let database = service.database.clone();
            let protocol = match &database {
                Some(_) => Protocol::Database,
                None if http => Protocol::Http,
                None => Protocol::Tcp,
            };
            let bounds = Bounds::default();
            let plan = Plan { route, protocol, bounds, tls: None, database };
            service.clients.contains(&client).then_some(plan)
        }
    }
}

async fn serve(
    connection: Connection,
    stream: std::net::TcpStream,
    (protocol, database): (Protocol, Option<Arc<Gate>>),
    tls: Option<tls::Side>,
) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    socket::tune(&stream);
    if protocol == Protocol::Database {
        match database {
            Some(gate) => postgres::serve(connection, stream, gate, tls).await,
            None => socket::reset_on_close(&stream),
        }
        return Ok(());
    }
    let mut phase = connection.phase.clone();
    let begun = tokio::select! {
        begun = begin(&connection, stream, protocol, tls) => begun?,
        // Nothing has been asked yet, so nothing is lost.
        () = closed(&mut phase) => return Ok(()),
    };
    match begun {
        (_, Sniffed::Nothing) => {}
        (stream, Sniffed::Http1) => http::serve(connection, stream, Version::One).await,
        (stream, Sniffed::Http2) => http::serve(connection, stream, Version::Two).await,
        (stream, Sniffed::Bytes) => tcp::serve(connection, stream).await,
    }
    Ok(())
}

/// The handshake of TLS, where there is one, and the first bytes.
async fn begin(
    connection: &Connection,
    stream: TcpStream,
    protocol: Protocol,
    tls: Option<tls::Side>,
) -> io::Result<(Stream, Sniffed)> {
    let patience = connection.shared.crowd.patience(connection.bounds.head);
    let Some(tls) = tls else {
        let sniffed = match protocol {
            Protocol::Tcp | Protocol::Udp => Sniffed::Bytes,
            _ => sniff::first_bytes(&stream, protocol, patience).await?,
        };
        return Ok((Stream::Plain(stream), sniffed));
    };
    let proofs = &connection.shared.proofs;
    let (mut stream, agreed) = timeout(patience, tls::accept(tls, proofs, stream)).await??;
    if agreed == Agreed::Proof {
        timeout(patience, stream.shutdown()).await??;
        return Ok((Stream::Tls(Box::new(Secured::new(stream))), Sniffed::Nothing));
    }
    let mut secured = Secured::new(stream);
    let sniffed = match agreed {
        Agreed::Proof => Sniffed::Nothing,
        _ if protocol == Protocol::Tcp => Sniffed::Bytes,
        Agreed::Http2 => Sniffed::Http2,
        Agreed::Http1 => Sniffed::Http1,
        Agreed::Nothing => sniff::first_secured_bytes(&mut secured, protocol, patience).await?,
    };
    Ok((Stream::Tls(Box::new(secured)), sniffed))
}
