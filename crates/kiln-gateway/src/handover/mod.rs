//! From one process of the gateway to the next, with traffic running.
//!
//! The new process asks on the control socket (`hand_over`). The running one answers with its
//! [`Estate`]: tables, the names of its sockets, certificates. The new one says that it is ready,
//! and gets the sockets themselves, and the lock of the root, as descriptors (`SCM_RIGHTS`,
//! unix(7)). It puts all tables in force on them and begins to accept beside the old one; only
//! then it says that it has taken over, and the old one stops to accept. Until then either may
//! fail, and the old one goes on as if nothing had been. No socket is ever closed or bound.
//!
//! What the old process has accepted it finishes, up to [`BOUND`]. Over the same connection it
//! is asked what it has in flight, so that the new one reports no instance as drained too early;
//! it follows each new table, so that a request which still comes over a kept connection goes
//! where it should; and it severs what is to be severed.

mod descriptors;
mod estate;
mod predecessor;
mod successor;

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::MESSAGE_LIMIT;

pub(crate) use estate::{Estate, HeldCertificate, HeldGate, Inherited, SocketName};
pub(crate) use predecessor::{ASKED, Offer, Predecessors};
pub(crate) use successor::{Left, give};

/// The version of the hand-over. It changes apart from that of the control protocol, so that a
/// newer gateway can take over from an older one.
pub(crate) const VERSION: u32 = 1;

/// How long the process that was taken over from may need for what it has in flight.
pub(crate) const BOUND: Duration = Duration::from_secs(600);

/// How long either side waits for the other in the course of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the new process says when it is ready for descriptors, and when it has taken over.
const READY: &str = "ready";
const TAKEN: &str = "taken";

/// A line of JSON.
fn send<T: Serialize>(mut stream: &UnixStream, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    io::Write::write_all(&mut stream, &line)
}

/// Reads a line of JSON; nothing follows it before it is answered.
fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MESSAGE_LIMIT)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}
