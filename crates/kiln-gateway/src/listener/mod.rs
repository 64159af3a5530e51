//! Listening sockets: bound first, started when the table that wants them is in force, and
//! closed politely.
//!
//! One task accepts for each listener and hands every connection to the least busy worker. The
//! alternative, one socket per worker with `SO_REUSEPORT`, would lose what is queued on a
//! socket that is closed.

pub(crate) mod holder;
pub(crate) mod inside;
pub(crate) mod socket;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

/// A pause after the process has run out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What connections of a listener may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Go on.
    Open,
    /// Finish what is in flight, at the latest then.
    Closing(Instant),
    /// The same, but somebody else listens now: a client that is about to ask may do so once
    /// more, and is told that it was the last time.
    Leaving(Instant),
}

impl Phase {
    /// Until when connections have to end.
    fn deadline(self) -> Option<Instant> {
        match self {
            Phase::Open => None,
            Phase::Closing(deadline) | Phase::Leaving(deadline) => Some(deadline),
        }
    }
}

/// Waits until the listener is closing or left; returns which, with the deadline. Never returns
/// before that.
pub(crate) async fn closing(phase: &mut watch::Receiver<Phase>) -> Phase {
    // The sender is kept until it has said that it closes, so a lost one means the same.
    let now = phase.wait_for(|phase| *phase != Phase::Open).await.map(|phase| *phase);
    now.unwrap_or_else(|_| Phase::Closing(Instant::now()))
}

/// Waits until the listener is closed for good.
pub(crate) async fn closed(phase: &mut watch::Receiver<Phase>) {
    let for_good = |phase: &Phase| matches!(phase, Phase::Closing(_));
    // A lost sender means the same.
    let _ = phase.wait_for(for_good).await;
}

/// Waits for the deadline of a listener that is closing or left.
pub(crate) async fn overdue(phase: &mut watch::Receiver<Phase>) {
    if let Some(deadline) = closing(phase).await.deadline() {
        tokio::time::sleep_until(deadline).await;
    }
}

/// A running listener. Dropping it without [`Listener::close`] closes it at once.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    phase: watch::Sender<Phase>,
}

impl Listener {
    /// Starts to accept on `runtime`; `serve` is called with each connection.
    pub(crate) fn start(
        socket: TcpListener,
        runtime: &Handle,
        serve: impl Fn(TcpStream, SocketAddr, watch::Receiver<Phase>) + Send + 'static,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let socket = Arc::new(socket);
        let phase = watch::Sender::new(Phase::Open);
        runtime.spawn(accept_all(Arc::clone(&socket), phase.subscribe(), serve));
        Ok(Self { address, socket, phase })
    }

    /// The address in use.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, to let another one share its port for a moment.
    pub(crate) fn socket(&self) -> &TcpListener {
        &self.socket
    }

    /// Accepts what is queued, then closes. Connections have until `bound` from now to end.
    pub(crate) fn close(self, bound: Duration) {
        self.phase.send_replace(Phase::Closing(Instant::now() + bound));
    }

    /// Accepts what is queued, then leaves the socket to others, or the endpoint to another
    /// socket. Connections have until `bound` from now. Returns what ends them earlier, also
    /// when it is dropped.
    pub(crate) fn leave(self, bound: Duration) -> watch::Sender<Phase> {
        self.phase.send_replace(Phase::Leaving(Instant::now() + bound));
        self.phase
    }
}

async fn accept_all(
    socket: Arc<TcpListener>,
    mut phase: watch::Receiver<Phase>,
    serve: impl Fn(TcpStream, SocketAddr, watch::Receiver<Phase>),
) {
    let connections = phase.clone();
    // SAFETY: the `Arc` that is handed over keeps this one socket open, and it is never
    // replaced by another.
    let ready = match unsafe { AsyncFd::register(Arc::clone(&socket)) } {
        Ok(ready) => ready,
        Err(error) => {
            eprintln!("kiln gateway: cannot wait for connections: {error}");
            return;
        }
    };
    loop {
        let readable = tokio::select! {
            readable = ready.readable() => readable,
            _phase = closing(&mut phase) => {
                accept_queued(&socket, &serve, &connections);
                return;
            }
        };
        let Ok(mut readable) = readable else { return };
        match accept_queued(&socket, &serve, &connections) {
            Some(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
            _ => tokio::time::sleep(EXHAUSTED_PAUSE).await,
        }
    }
}

/// Accepts until there is nothing left (`WouldBlock`) or the process has run out of something.
fn accept_queued(
    socket: &TcpListener,
    serve: &impl Fn(TcpStream, SocketAddr, watch::Receiver<Phase>),
    phase: &watch::Receiver<Phase>,
) -> Option<io::Error> {
    loop {
        match socket.accept() {
            Ok((stream, remote)) => serve(stream, remote, phase.clone()),
            // The client went away while it was queued.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Some(error),
        }
    }
}
