//! Kept connections to one instance, ready for the next request.
//!
//! Each worker thread has a shelf of its own, since a connection is driven by the thread that
//! made it; the lock around a shelf is taken by another thread only when the pool is closed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::clock::now_ms;
use crate::http::body::RequestBody;
use crate::http::limits;
use crate::load::severed;
use crate::peer::Peer;

/// How long a connection is kept without use: less than the five seconds after which common
/// servers close theirs, so that a request seldom meets a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// How long a connection may take to become ready for the next request.
const MOMENT: Duration = Duration::from_millis(200);

/// Connections kept per worker and instance.
const SHELF_LIMIT: usize = 512;

/// The sending half of a connection to an instance.
pub(crate) type Sender = http1::SendRequest<RequestBody>;

/// The idle connections to one instance.
#[derive(Debug)]
pub(crate) struct Pool {
    shelves: Box<[Mutex<Shelf>]>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The most recently used one is last.
    idle: Vec<Idle>,
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since_ms: u64,
}

impl Pool {
    pub(crate) fn new(workers: usize) -> Self {
        let shelves = (0..workers.max(1)).map(|_| Mutex::default()).collect();
        Self { shelves, closed: AtomicBool::new(false) }
    }

    /// The most recently used connection that is still good.
    pub(crate) fn take(&self, worker: usize) -> Option<Sender> {
        let mut kept = self.shelf(worker);
        while let Some(idle) = kept.idle.pop() {
            if !idle.sender.is_closed() && idle.sender.is_ready() && !idle.is_old() {
                return Some(idle.sender);
            }
        }
        None
    }

    /// Ends all idle connections and takes no further ones.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        for worker in 0..self.shelves.len() {
            drop(std::mem::take(&mut self.shelf(worker).idle));
        }
    }

    /// Takes connections again.
    pub(crate) fn reopen(&self) {
        self.closed.store(false, SeqCst);
    }

    fn shelf(&self, worker: usize) -> MutexGuard<'_, Shelf> {
        // A panic elsewhere cannot leave a list of idle connections in a wrong state.
        self.shelves[worker % self.shelves.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn is_old(&self) -> bool {
        now_ms().saturating_sub(self.since_ms) >= limit_ms()
    }
}

fn limit_ms() -> u64 {
    u64::try_from(IDLE_LIMIT.as_millis()).unwrap_or(u64::MAX)
}

/// Opens a connection to `peer` and drives it on this thread until it ends or the instance is
/// severed.
pub(crate) async fn open(peer: &Peer) -> io::Result<Sender> {
    let stream = peer.connect(0).await?;
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(limits::BUFFER)
        .max_header_size(limits::BUFFER)
        .max_headers(limits::HEADERS);
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut severance = peer.load().severance();
    tokio::spawn(async move {
        tokio::select! {
            // Its errors reach whoever waits for the response.
            _ended = connection.with_upgrades() => {}
            () = severed(&mut severance) => {}
        }
    });
    Ok(sender)
}

/// Puts a connection back when it is done with its last request; drops it when it is not
/// within a moment, or is not wanted any more.
pub(crate) fn give_back(peer: &Arc<Peer>, worker: usize, mut sender: Sender) {
    if sender.is_closed() {
        return;
    }
    if sender.is_ready() {
        shelve(peer, worker, sender);
        return;
    }
    // Waiting keeps neither the peer nor, beyond the moment, its namespace.
    let peer = Arc::downgrade(peer);
    tokio::spawn(async move {
        if let Ok(Ok(())) = tokio::time::timeout(MOMENT, sender.ready()).await
            && let Some(peer) = peer.upgrade()
        {
            shelve(&peer, worker, sender);
        }
    });
}

fn shelve(peer: &Arc<Peer>, worker: usize, sender: Sender) {
    let pool = peer.pool();
    let mut shelf = pool.shelf(worker);
    // Looked at under the lock that `close` takes after it has set the mark.
    if pool.closed.load(SeqCst) || shelf.idle.len() >= SHELF_LIMIT {
        return;
    }
    shelf.idle.push(Idle { sender, since_ms: now_ms() });
    if !shelf.swept {
        shelf.swept = true;
        tokio::spawn(sweep(Arc::downgrade(peer), worker));
    }
}

/// Ends connections that have been idle too long; runs only while there are idle ones.
async fn sweep(peer: Weak<Peer>, worker: usize) {
    loop {
        tokio::time::sleep(IDLE_LIMIT).await;
        let Some(peer) = peer.upgrade() else { return };
        let mut shelf = peer.pool().shelf(worker);
        shelf.idle.retain(|idle| !idle.sender.is_closed() && !idle.is_old());
        if shelf.idle.is_empty() {
            shelf.idle = Vec::new();
            shelf.swept = false;
            return;
        }
    }
}
