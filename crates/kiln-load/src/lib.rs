//! Constant load of every kind on an endpoint: what was answered, what failed, how long it took.
//!
//! Tests and benchmarks begin a [`Load`] before they change something and look at its [`Tally`]
//! afterwards. A client here forgives nothing: an answer that is not 200, a connection that ends
//! before its answer, bytes that are missing or wrong are failures, and none is tried again. Only
//! what the protocol itself allows is no failure: an end that was announced, by `Connection: close`
//! or GOAWAY, before anything was sent.
//!
//! What is asked is served by `kiln-probe`: `/`, `/download`, the WebSocket `/echo`, and its TCP port
//! that sends back what comes.
//!
//! All clients share one thread, so that the load itself takes no more than one processor. Clients of
//! databases are in [`ledger`].

mod clients;
pub mod ledger;
mod pace;
mod requests;
mod sessions;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub use pace::Pace;
pub use tally::Tally;

use tally::Ledger;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Requests over HTTP/1.1 on one connection, as long as it lasts.
    Http1Kept,
    /// Requests over HTTP/1.1, each on a connection of its own.
    Http1Fresh,
    /// Requests over HTTP/2 in the clear, on one connection.
    Http2,
    /// A megabyte that takes [`SESSION`].
    Download,
    /// A WebSocket on which messages come back, for [`SESSION`].
    WebSocket,
    /// A TCP connection on which bytes come back, for [`SESSION`].
    Tcp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Http1Kept,
        Self::Http1Fresh,
        Self::Http2,
        Self::Download,
        Self::WebSocket,
        Self::Tcp,
    ];

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1Kept => "HTTP/1.1, kept alive",
            Self::Http1Fresh => "HTTP/1.1, a connection each",
            Self::Http2 => "HTTP/2",
            Self::Download => "download, to its head",
            Self::WebSocket => "WebSocket, a message",
            Self::Tcp => "TCP, a message",
        }
    }
}

/// How long a download, a WebSocket and a TCP connection last: well below the bound of a drain.
pub const SESSION: Duration = Duration::from_secs(1);

/// Where the load goes.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// Requests, downloads and WebSocket connections.
    pub http: SocketAddr,
    /// Plain TCP; without it [`Kind::Tcp`] goes to `http`, which fails.
    pub tcp: Option<SocketAddr>,
}

/// So many clients that do the same.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// What they do.
    pub kind: Kind,
    /// How many.
    pub clients: usize,
    /// How often each asks: a request, or a message of a session.
    pub pace: Pace,
    /// Whether every second request is a POST with a body, which may not be repeated.
    pub posts: bool,
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    phase: AtomicUsize,
    ledger: Ledger,
}

/// Clients at work, until [`Load::end`].
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Begins.
    ///
    /// # Panics
    ///
    /// Where no thread or runtime can be made.
    pub fn start(aim: Aim, groups: &[Group]) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            phase: AtomicUsize::new(0),
            ledger: Ledger::default(),
        });
        let (theirs, groups) = (Arc::clone(&shared), groups.to_vec());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(clients::run(aim, &groups, &theirs));
        });
        Self { shared, thread }
    }

    /// What ends from now on counts for this phase; the first one is 0.
    pub fn phase(&self, phase: usize) {
        self.shared.phase.store(phase, Ordering::Relaxed);
    }

    /// How many requests, messages and downloads were answered well so far.
    pub fn answered(&self) -> u64 {
        self.shared.ledger.answered()
    }

    /// What failed so far.
    pub fn failures(&self) -> Vec<String> {
        self.shared.ledger.failures()
    }

    /// Ends the clients, each after what it has begun: what became of all they did.
    ///
    /// # Panics
    ///
    /// Where a client did.
    pub fn end(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("clients do not panic");
        self.shared.ledger.tally()
    }
}
