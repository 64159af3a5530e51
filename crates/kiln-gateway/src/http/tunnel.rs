//! A connection that has switched to another protocol, such as WebSocket.

use std::sync::Arc;

use crate::http::one::{Line, Wire};
use crate::http::serve::Session;
use crate::listener::overdue;
use crate::load::{InFlight, severed};
use crate::tcp::relay;

/// Passes bytes on until either side ends, the instance is severed, or the listener's bound
/// for closing is reached. The session counts as open for as long.
pub(crate) async fn run(
    session: Arc<Session>,
    mut client: Wire,
    mut instance: Box<Line>,
    in_flight: InFlight,
) {
    let mut severance = in_flight.load().severance();
    let mut phase = session.connection.phase.clone();
    tokio::select! {
        // Either side's failure ends both, which is all that can be told.
        _relayed = relay(&mut client, &mut instance) => {}
        () = severed(&mut severance) => {}
        () = overdue(&mut phase) => {}
    }
}
