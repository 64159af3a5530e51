//! A connection that has switched to another protocol, such as WebSocket.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::http::serve::Session;
use crate::listener::overdue;
use crate::load::{InFlight, severed};
use crate::tcp::relay;

/// Passes bytes on until either side ends, the instance is severed, or the listener's bound
/// for closing is reached. The session counts as open for as long.
pub(crate) async fn run(
    session: Arc<Session>,
    client: OnUpgrade,
    instance: OnUpgrade,
    in_flight: InFlight,
) {
    let (Ok(client), Ok(instance)) = tokio::join!(client, instance) else { return };
    let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
    let mut severance = in_flight.load().severance();
    let mut phase = session.connection.phase.clone();
    tokio::select! {
        // Either side's failure ends both, which is all that can be told.
        _relayed = relay(&mut client, &mut instance) => {}
        () = severed(&mut severance) => {}
        () = overdue(&mut phase) => {}
    }
}
