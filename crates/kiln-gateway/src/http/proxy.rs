//! One request: choose an instance, pass the request on, pass the response back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use crate::clock::now_ms;
use crate::http::body::{Lease, RequestBody, ResponseBody};
use crate::http::fault::Fault;
use crate::http::forward::{prepare_request, prepare_response};
use crate::http::serve::{Busy, Session};
use crate::http::{limits, tunnel};
use crate::load::Unit;
use crate::peer::Peer;
use crate::pool::{self, Sender};

/// Instances to which a connection is tried before a request is given up. Nothing has been
/// sent to those before, so this holds for every method.
const CONNECTS: u32 = 3;

/// Answers one request, whatever happens.
pub(crate) async fn answer(
    session: &Arc<Session>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let started = Instant::now();
    let stats = session.connection.route.stats();
    if let Some(stats) = stats {
        stats.request();
    }
    let busy = Busy::begin(session);
    let answered = forward(session, request, busy).await;
    let response = answered.unwrap_or_else(|fault| {
        if let Some(stats) = stats
            && fault.is_error()
        {
            stats.error();
        }
        fault.response()
    });
    if let Some(stats) = stats {
        stats.response(response.status().as_u16(), started.elapsed());
    }
    response
}

/// Why one attempt gave no response.
enum Failure {
    /// No connection to the instance could be made.
    NotConnected(Request<RequestBody>),
    /// A kept connection turned out to be closed before anything was sent.
    Stale(Request<RequestBody>),
    /// The connection ended after the request was sent.
    Lost { kept: bool },
    /// There was no answer in time.
    TimedOut,
}

async fn forward(
    session: &Arc<Session>,
    mut request: Request<Incoming>,
    busy: Busy,
) -> Result<Response<ResponseBody>, Fault> {
    let on_upgrade = prepare_request(&mut request, &session.origin)?;
    let mut request = request.map(RequestBody::from);
    let mut replay = if on_upgrade.is_none() { Replay::of(&request) } else { None };
    let connection = &session.connection;
    let mut avoid: Option<Arc<Peer>> = None;
    let mut connects = 0;
    let mut fresh = false;
    loop {
        let picked = connection.route.pick(&connection.shared, avoid.as_ref(), Unit::Request);
        let (peer, in_flight) = picked.ok_or(Fault::NoInstance)?;
        match attempt(&peer, connection.worker, request, fresh).await {
            Ok((response, sender)) => {
                let worker = connection.worker;
                let sender = Some(sender);
                let lease = Lease { peer, worker, sender, in_flight, _busy: busy, complete: false };
                return respond(session, response, lease, on_upgrade);
            }
            Err(Failure::NotConnected(unsent)) => {
                connects += 1;
                if connects == CONNECTS {
                    return Err(Fault::Unreachable);
                }
                request = unsent;
                avoid = Some(peer);
            }
            Err(Failure::Stale(unsent)) => {
                request = unsent;
                fresh = true;
            }
            Err(Failure::Lost { kept }) => {
                // Once, and only what may be done twice.
                request = replay.take().ok_or(Fault::Broken)?.request();
                fresh = true;
                // A kept connection ends for many reasons; a new one because the instance does.
                avoid = if kept { avoid } else { Some(peer) };
            }
            Err(Failure::TimedOut) => return Err(Fault::TimedOut),
        }
        drop(in_flight);
    }
}

/// Sends the request to one instance and waits for the head of its response.
async fn attempt(
    peer: &Arc<Peer>,
    worker: usize,
    request: Request<RequestBody>,
    fresh: bool,
) -> Result<(Response<Incoming>, Sender), Failure> {
    let kept = if fresh { None } else { peer.pool().take(worker) };
    let was_kept = kept.is_some();
    let mut sender = match kept {
        Some(sender) => sender,
        None => match pool::open(peer).await {
            Ok(sender) => sender,
            Err(_told_by_the_peer) => return Err(Failure::NotConnected(request)),
        },
    };
    let progress = request.body().progress();
    let sent = sender.try_send_request(request);
    match within(limits::RESPONSE_TIME, progress.as_deref(), sent).await {
        Ok(Ok(response)) => Ok((response, sender)),
        Ok(Err(mut error)) => Err(match error.take_message() {
            Some(request) if was_kept => Failure::Stale(request),
            Some(request) => Failure::NotConnected(request),
            None => Failure::Lost { kept: was_kept },
        }),
        Err(_elapsed) => Err(Failure::TimedOut),
    }
}

/// Waits for `future` at most `limit` after the last progress of the request's body.
async fn within<F: Future>(
    limit: Duration,
    progress: Option<&AtomicU64>,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut wait = limit;
    loop {
        let elapsed = match timeout(wait, future.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(elapsed) => elapsed,
        };
        let Some(progress) = progress else { return Err(elapsed) };
        let since = Duration::from_millis(now_ms().saturating_sub(progress.load(Relaxed)));
        match limit.checked_sub(since) {
            Some(left) if !left.is_zero() => wait = left,
            _ => return Err(elapsed),
        }
    }
}

fn respond(
    session: &Arc<Session>,
    mut response: Response<Incoming>,
    mut lease: Lease,
    on_upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Result<Response<ResponseBody>, Fault> {
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgraded {
        // The connection is the tunnel's from now on.
        lease.sender = None;
        let client = on_upgrade.ok_or(Fault::Broken)?;
        let instance = hyper::upgrade::on(&mut response);
        let in_flight = lease.in_flight.load().carry_on(Unit::Connection);
        tokio::spawn(tunnel::run(Arc::clone(session), client, instance, in_flight));
    }
    prepare_response(&mut response, upgraded);
    Ok(response.map(|body| ResponseBody::Backend(body, lease)))
}

/// A request that may be sent again: idempotent (RFC 9110, section 9.2.2) and without a body.
struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Replay {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let replayable =
            request.method().is_idempotent() && matches!(request.body(), RequestBody::None);
        replayable.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::None);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}
