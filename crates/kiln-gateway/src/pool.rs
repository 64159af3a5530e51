//! Kept connections to one instance, ready for the next request.
//!
//! Each worker thread has a shelf of its own, since a connection is driven by the thread that
//! made it; the lock around a shelf is taken by another thread only when the pool is closed.
//! A connection that speaks HTTP/1 is taken from its shelf for one request at a time; one that
//! speaks HTTP/2 stays there and carries many.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::clock::now_ms;
use crate::http::body::{InstanceBody, RequestBody};
use crate::http::limits;
use crate::http::one::{Line, Sent};
use crate::load::severed;
use crate::peer::Peer;

/// How long a connection is kept without use: less than the five seconds after which common
/// servers close theirs, so that a request seldom meets a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// Connections kept per worker and instance.
const SHELF_LIMIT: usize = 512;

/// Requests that one HTTP/2 connection to an instance carries at a time; servers usually allow
/// a hundred.
const STREAMS: usize = 100;

/// The sending half of a connection to an instance.
#[derive(Debug)]
pub(crate) enum Sender {
    /// Carries one request at a time.
    One(Box<Line>),
    /// Carries many, of which this is one.
    Many { sender: http2::SendRequest<RequestBody>, stream: Stream },
}

/// One request on a connection that carries many; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Sender {
    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<InstanceBody>, Sent> {
        match self {
            Sender::One(line) => Ok(line.send(request).await?.map(InstanceBody::One)),
            Sender::Many { mut sender, stream } => {
                let replay = Replay::of(&request);
                match sender.try_send_request(*request).await {
                    Ok(response) => {
                        Ok(response.map(|body| InstanceBody::Two { body, _stream: stream }))
                    }
                    Err(mut error) => Err(match error.take_message() {
                        Some(request) => Sent::Not(Box::new(request)),
                        None => Sent::Perhaps(replay.map(|replay| Box::new(replay.request()))),
                    }),
                }
            }
        }
    }
}

/// A request without a body that may have to be sent again.
struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Replay {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        matches!(request.body(), RequestBody::None).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::None);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        request
    }
}

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
    /// Connections that carry many requests.
    shared: Vec<SharedConnection>,
}

#[derive(Debug)]
struct Idle {
    line: Box<Line>,
    since_ms: u64,
}

#[derive(Debug)]
struct SharedConnection {
    sender: http2::SendRequest<RequestBody>,
    streams: Arc<AtomicUsize>,
}

impl Pool {
    pub(crate) fn new(workers: usize) -> Self {
        let shelves = (0..workers.max(1)).map(|_| Mutex::default()).collect();
        Self { shelves, closed: AtomicBool::new(false) }
    }

    /// The most recently used connection that is still good, or one that carries many and has
    /// room.
    pub(crate) fn take(&self, worker: usize, http2: bool) -> Option<Sender> {
        let mut kept = self.shelf(worker);
        if http2 {
            kept.shared.retain(|shared| !shared.sender.is_closed());
            let free = |shared: &&SharedConnection| shared.streams.load(Relaxed) < STREAMS;
            let shared = kept.shared.iter().find(free)?;
            let sender = shared.sender.clone();
            return Some(Sender::Many { sender, stream: Stream::begin(&shared.streams) });
        }
        while let Some(idle) = kept.idle.pop() {
            if !idle.is_old() && idle.line.is_open() {
                return Some(Sender::One(idle.line));
            }
        }
        None
    }

    /// Ends all idle connections and takes no further ones. Those that carry many requests end
    /// with the last of them.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        for worker in 0..self.shelves.len() {
            let mut emptied = self.shelf(worker);
            let (idle, shared) =
                (std::mem::take(&mut emptied.idle), std::mem::take(&mut emptied.shared));
            drop((emptied, idle, shared));
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

/// Opens a connection to `peer`. One that carries many requests is driven on this thread until it
/// ends or the instance is severed; any other by whoever waits for its response.
pub(crate) async fn open(peer: &Peer, worker: usize, http2: bool) -> io::Result<Sender> {
    let stream = peer.connect(0).await?;
    if http2 {
        return open_shared(peer, worker, TokioIo::new(stream)).await;
    }
    Ok(Sender::One(Line::new(stream, peer.load())?))
}

async fn open_shared(
    peer: &Peer,
    worker: usize,
    stream: TokioIo<tokio::net::TcpStream>,
) -> io::Result<Sender> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(u32::try_from(limits::BUFFER).unwrap_or(u32::MAX));
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    let mut severance = peer.load().severance();
    tokio::spawn(async move {
        tokio::select! {
            // Its errors reach whoever waits for a response.
            _ended = connection => {}
            () = severed(&mut severance) => {}
        }
    });
    let streams = Arc::new(AtomicUsize::new(0));
    let stream = Stream::begin(&streams);
    let mut shelf = peer.pool().shelf(worker);
    // Looked at under the lock that `close` takes after it has set the mark.
    if !peer.pool().closed.load(SeqCst) && shelf.shared.len() < SHELF_LIMIT {
        shelf.shared.push(SharedConnection { sender: sender.clone(), streams });
    }
    Ok(Sender::Many { sender, stream })
}

/// Puts a connection back that is done with its last request, unless it is not wanted any more.
pub(crate) fn give_back(peer: &Arc<Peer>, worker: usize, line: Box<Line>) {
    let pool = peer.pool();
    let mut shelf = pool.shelf(worker);
    // Looked at under the lock that `close` takes after it has set the mark.
    if pool.closed.load(SeqCst) || shelf.idle.len() >= SHELF_LIMIT {
        return;
    }
    shelf.idle.push(Idle { line, since_ms: now_ms() });
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
        shelf.idle.retain(|idle| !idle.is_old() && idle.line.is_open());
        if shelf.idle.is_empty() {
            shelf.idle = Vec::new();
            shelf.swept = false;
            return;
        }
    }
}
