//! Connections that are passed on as bytes.

mod relay;

use tokio::net::TcpStream;

use crate::connection::Connection;
use crate::listener::{closing, socket};
use crate::load::{InFlight, Unit, severed};

pub(crate) use relay::relay;

/// Instances that are tried before a connection is given up: nothing has been sent to them.
const ATTEMPTS: usize = 3;

/// Passes a connection on until it ends by itself, its instance is severed, or the listener's
/// bound for closing is reached. A connection that ends otherwise than by itself is reset.
pub(crate) async fn serve(mut connection: Connection, mut client: TcpStream) {
    let Some((mut backend, in_flight)) = connect(&connection).await else {
        if let Some(stats) = connection.route.stats() {
            stats.error();
        }
        socket::reset_on_close(&client);
        return;
    };
    let mut severance = in_flight.load().severance();
    let ended = tokio::select! {
        relayed = relay(&mut client, &mut backend) => relayed.is_ok(),
        () = severed(&mut severance) => false,
        () = async {
            let deadline = closing(&mut connection.phase).await;
            tokio::time::sleep_until(deadline).await;
        } => false,
    };
    if !ended {
        socket::reset_on_close(&client);
        socket::reset_on_close(&backend);
    }
}

/// A connection to an instance, which is counted as in flight.
async fn connect(connection: &Connection) -> Option<(TcpStream, InFlight)> {
    let mut avoid = None;
    for _ in 0..ATTEMPTS {
        let (peer, in_flight) =
            connection.route.pick(&connection.shared, avoid.as_ref(), Unit::Connection)?;
        if let Ok(stream) = peer.connect(connection.route.port()).await {
            return Some((stream, in_flight));
        }
        avoid = Some(peer);
    }
    None
}
