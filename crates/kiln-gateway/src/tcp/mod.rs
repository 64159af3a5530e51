//! Connections that are passed on as bytes.

mod proxy_protocol;
mod relay;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::access_log::{self, Entry};
use crate::client::Stream;
use crate::connection::Connection;
use crate::gate::Place;
use crate::listener::{overdue, socket};
use crate::load::{InFlight, Unit, severed};
use crate::route::Way;
use crate::stats::{Counters, Going};

pub(crate) use relay::relay;

/// Instances that are tried before a connection is given up: nothing has been sent to them.
const ATTEMPTS: usize = 3;

/// A connection to an instance, and what it holds.
struct Connected {
    stream: TcpStream,
    in_flight: InFlight,
    _place: Option<Place>,
    _going: Option<Going>,
}

/// Passes a connection on until it ends by itself, its instance is severed, or the listener's
/// bound for closing is reached. A connection that ends otherwise than by itself is reset.
pub(crate) async fn serve(mut connection: Connection, mut client: Stream) {
    let (started, time) = (Instant::now(), access_log::now());
    let remote = connection.remote.ip();
    let way = connection.route.way(&connection.shared, remote, None).unwrap_or_default();
    let endpoint = connection.route.endpoint().cloned();
    let Some(mut backend) = connect(&connection, &client, &way).await else {
        let of_endpoint = endpoint.iter().map(|endpoint| &endpoint.counters);
        of_endpoint.chain(&way.counters).for_each(|counters| counters.error());
        client.reset_on_close();
        return;
    };
    let mut severance = backend.in_flight.load().severance();
    let ended = tokio::select! {
        relayed = relay(&mut client, &mut backend.stream) => relayed.is_ok(),
        () = severed(&mut severance) => false,
        () = overdue(&mut connection.phase) => false,
    };
    if !ended {
        client.reset_on_close();
        socket::reset_on_close(&backend.stream);
    }
    if let (true, Some(endpoint)) = (way.access_log, endpoint) {
        let entry = Entry {
            time,
            client: connection.remote.to_string(),
            protocol: "TCP",
            milliseconds: started.elapsed().as_secs_f64() * 1000.0,
            instance: Some(backend.in_flight.load().instance().to_string()),
            ..Entry::default()
        };
        connection.shared.log.note(endpoint.log_name(), &entry);
    }
}

/// A connection to an instance, which is counted as in flight.
async fn connect(connection: &Connection, client: &Stream, way: &Way) -> Option<Connected> {
    way.counters.iter().for_each(|counters| counters.connection());
    let place = match &way.gate {
        Some(gate) => Some(gate.enter().await.ok()?),
        None => None,
    };
    let going = way.counters.as_ref().map(Counters::begin);
    let mut avoid = None;
    for _ in 0..ATTEMPTS {
        let pick = |avoid| connection.route.pick(&connection.shared, way, avoid, Unit::Connection);
        let (peer, in_flight) = match pick(avoid.as_ref()) {
            None if way.wait_again().await => pick(None)?,
            picked => picked?,
        };
        if let Ok(mut stream) = peer.connect(connection.route.port()).await
            && introduce(connection, client, way, &mut stream).await.is_ok()
        {
            return Some(Connected { stream, in_flight, _place: place, _going: going });
        }
        avoid = Some(peer);
    }
    None
}

/// Tells the instance who the client is, where that is wanted.
async fn introduce(
    connection: &Connection,
    client: &Stream,
    way: &Way,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    if !way.proxy_protocol {
        return Ok(());
    }
    let header = proxy_protocol::header(connection.remote, client.local_addr()?);
    timeout(connection.bounds.head, stream.write_all(&header)).await?
}
