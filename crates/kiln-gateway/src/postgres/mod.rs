//! The gate: clients of databases, whose sessions outlive the instances that serve them.
//!
//! A client speaks PostgreSQL's protocol, version 3, with the gate; for each session the gate has
//! one with the instance that answers at present. Messages are relayed as they are; of most only
//! the head is read. From the instance's `ReadyForQuery` the gate knows when nothing is under way.
//! Then a session can be held, its state asked for, its connection closed, and the session made
//! anew at another instance, and the client sees a pause.
//!
//! | part | what it does |
//! | --- | --- |
//! | `start`, `scram`, `login` | TLS, the startup message, the password |
//! | `gate` | which instance answers, who is held, when all are done |
//! | `session`, `relay`, `pipe` | one client: relayed, held, carried |
//! | `tracker`, `statement` | what is under way, and what the session has |
//! | `link`, `carry` | a session with an instance; asking for what it has and making it anew |
//! | `cancel` | keys by which something is cancelled |
//! | `wire` | messages |

mod cancel;
mod carry;
mod gate;
mod link;
mod login;
mod pipe;
mod relay;
mod scram;
mod session;
mod start;
mod statement;
mod tracker;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use cancel::Cancels;
pub(crate) use gate::{Aim, Gate};
pub(crate) use login::{HeldLogin, Login};
pub(crate) use wire::CancelKey;

use crate::client::Stream;
use crate::connection::Connection;
use crate::listener::closed;
use crate::tls;
use session::Session;
use start::{Begun, Refused, Startup};
use wire::code;

/// How long a client has from its first byte to its password.
const LOGIN: Duration = Duration::from_secs(15);

/// Serves a client of a database.
pub(crate) async fn serve(
    connection: Connection,
    stream: TcpStream,
    gate: Arc<Gate>,
    side: Option<tls::Side>,
) {
    let mut phase = connection.phase.clone();
    let patience = connection.shared.crowd.patience(LOGIN);
    let begun = tokio::select! {
        begun = timeout(patience, log_in(&connection, &gate, stream, side)) => begun,
        // Nothing has been asked yet, so nothing is lost.
        () = closed(&mut phase) => return,
    };
    let Ok(Ok(Some((mut stream, startup)))) = begun else { return };
    let Some(member) = gate.join() else {
        let refused = Refused(code::TOO_MANY, "sorry, too many clients already".to_owned());
        return start::refuse(&mut stream, &refused).await;
    };
    stream.limit_unread();
    let cancel = connection.shared.cancels.register();
    let session = Session::new(stream, startup, member, cancel);
    session.run(gate.follow(), phase).await;
}

/// A client that has proved who it is; nothing where it wanted something else or was refused.
async fn log_in(
    connection: &Connection,
    gate: &Gate,
    stream: TcpStream,
    side: Option<tls::Side>,
) -> io::Result<Option<(Stream, Startup)>> {
    let shared = &connection.shared;
    let (mut stream, startup) = match start::begin(stream, side, &shared.proofs).await? {
        Begun::Session(stream, startup) => (stream, startup),
        Begun::Cancel(key) => {
            if !shared.cancels.cancel(key).await && !shared.predecessors.is_empty() {
                let predecessors = shared.predecessors.clone();
                // It waits for the answer of another process.
                let asked = tokio::task::spawn_blocking(move || predecessors.cancel(key));
                asked.await.map_err(io::Error::other)?;
            }
            return Ok(None);
        }
        Begun::Nothing => return Ok(None),
    };
    match start::authenticate(&mut stream, &startup, &gate.login()).await? {
        Ok(()) => Ok(Some((stream, startup))),
        Err(refused) => {
            start::refuse(&mut stream, &refused).await;
            Ok(None)
        }
    }
}
