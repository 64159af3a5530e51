//! One request: choose an instance, pass the request on, pass the response back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::{Request, Response, StatusCode};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use crate::clock::now_ms;
use crate::http::body::{InstanceBody, Lease, Progress, RequestBody, ResponseBody};
use crate::http::fault::Fault;
use crate::http::forward::{Head, prepare_request, prepare_response, say_close};
use crate::http::note::Note;
use crate::http::one::Sent;
use crate::http::serve::{Busy, Session};
use crate::load::{InFlight, Unit};
use crate::peer::Peer;
use crate::pool;
use crate::route::{Asked, Way};
use crate::stats::Counters;

/// Instances to which a connection is tried before a request is given up. Nothing has been
/// sent to those before, so this holds for every method.
const CONNECTS: u32 = 3;

/// What is counted and noted of one request.
#[derive(Default)]
struct Account {
    /// Of the route that it takes, once that is known.
    route: Option<Arc<Counters>>,
    note: Option<Box<Note>>,
}

/// Answers one request, whatever happens.
pub(crate) async fn answer(
    session: &Arc<Session>,
    request: Box<Request<RequestBody>>,
) -> Response<ResponseBody> {
    let started = Instant::now();
    let endpoint = session.connection.route.endpoint().map(|endpoint| &*endpoint.counters);
    if let Some(counters) = endpoint {
        counters.request();
    }
    let busy = Busy::begin(session);
    let mut account = Account::default();
    let answered = forward(session, request, busy, &mut account).await;
    let counters = || endpoint.into_iter().chain(account.route.as_deref());
    let mut is_last = session.is_leaving();
    let mut response = match answered {
        Ok(response) => response,
        Err(fault) => {
            if fault.is_error() {
                counters().for_each(Counters::error);
            }
            if fault.ends_connection() {
                session.clock.refuse();
                is_last = true;
            }
            fault.response()
        }
    };
    let (status, latency) = (response.status().as_u16(), started.elapsed());
    counters().for_each(|counters| counters.response(status, latency));
    if is_last && status != 101 && session.is_http1() {
        say_close(&mut response);
    }
    if let Some(mut note) = account.note {
        note.status(status);
        match response.body_mut() {
            ResponseBody::Backend(_, lease) => {
                note.instance(lease.in_flight.load().instance().as_str());
                lease.note = Some(note);
            }
            ResponseBody::Text(_, place) => *place = Some(note),
        }
    }
    response
}

/// Why one attempt gave no response.
enum Failure {
    /// No connection to the instance could be made.
    NotConnected(Box<Request<RequestBody>>),
    /// A kept connection turned out to be closed before anything was sent.
    Stale(Box<Request<RequestBody>>),
    /// The connection ended after something of the request was sent, which is still there where
    /// it has no body.
    Lost { kept: bool, request: Option<Box<Request<RequestBody>>> },
    /// The client's own body is at fault.
    Client(Fault),
    /// There was no answer in time.
    TimedOut,
}

async fn forward(
    session: &Arc<Session>,
    mut request: Box<Request<RequestBody>>,
    busy: Busy,
    account: &mut Account,
) -> Result<Response<ResponseBody>, Fault> {
    let connection = &session.connection;
    let mut note = if session.is_logged() { Note::begin(session, &request) } else { None };
    let prepared = prepare_request(&mut request, &session.origin, connection.route.is_http2());
    if let (Some(note), Ok(head)) = (&mut note, &prepared) {
        note.host(&head.host);
    }
    account.note = note;
    let Head { host, upgrade } = prepared?;
    let way = way(session, &request, host.to_str().unwrap_or_default())?;
    account.route.clone_from(&way.counters);
    let going = way.counters.as_ref().map(|counters| {
        counters.request();
        counters.begin()
    });
    if request.body().is_too_large() {
        return Err(Fault::TooLarge);
    }
    let place =
        match &way.gate {
            Some(gate) => Some(gate.enter().await.map_err(|_full| {
                if gate.holds() { Fault::NoInstance } else { Fault::Overloaded }
            })?),
            None => None,
        };
    // Idempotent (RFC 9110, section 9.2.2).
    let repeatable = !upgrade && request.method().is_idempotent();
    let (response, peer, in_flight) = send(session, request, &way, repeatable).await?;
    let lease = Lease {
        peer,
        worker: connection.worker,
        in_flight,
        _busy: busy,
        _place: place,
        _going: going,
        note: None,
    };
    respond(response, lease, upgrade)
}

fn way(session: &Session, request: &Request<RequestBody>, host: &str) -> Result<Way, Fault> {
    let connection = &session.connection;
    let asked = Asked { host, path: request.uri().path(), headers: request.headers() };
    let way = connection.route.way(&connection.shared, connection.remote.ip(), Some(asked));
    way.map_err(|_ambiguous| Fault::Ambiguous)
}

/// Sends the request to an instance, and to others where nothing can have come of it.
async fn send(
    session: &Session,
    mut request: Box<Request<RequestBody>>,
    way: &Way,
    mut repeatable: bool,
) -> Result<(Response<InstanceBody>, Arc<Peer>, InFlight), Fault> {
    let connection = &session.connection;
    let mut avoid: Option<Arc<Peer>> = None;
    let (mut connects, mut fresh) = (0, false);
    loop {
        let picked = connection.route.pick(&connection.shared, way, avoid.as_ref(), Unit::Request);
        let Some((peer, in_flight)) = picked else {
            if way.wait_again().await {
                continue;
            }
            return Err(Fault::NoInstance);
        };
        let begun = Instant::now();
        match attempt(session, &peer, request, fresh).await {
            Ok(response) => {
                let status = response.status();
                peer.answered(!status.is_server_error());
                in_flight.load().counters().response(status.as_u16(), begun.elapsed());
                return Ok((response, peer, in_flight));
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
            Err(Failure::Lost { kept, request: lost }) => {
                // A kept connection ends for many reasons; a new one because the instance does.
                if !kept {
                    peer.answered(false);
                    in_flight.load().counters().error();
                }
                // Once, and only what may be done twice.
                let again = lost.filter(|_| std::mem::take(&mut repeatable));
                request = again.ok_or(Fault::Broken)?;
                fresh = true;
                avoid = if kept { avoid } else { Some(peer) };
            }
            Err(Failure::Client(fault)) => return Err(fault),
            Err(Failure::TimedOut) => {
                peer.answered(false);
                in_flight.load().counters().error();
                return Err(Fault::TimedOut);
            }
        }
        drop(in_flight);
    }
}

/// Sends the request to one instance and waits for the head of its response.
async fn attempt(
    session: &Session,
    peer: &Arc<Peer>,
    request: Box<Request<RequestBody>>,
    fresh: bool,
) -> Result<Response<InstanceBody>, Failure> {
    let connection = &session.connection;
    let http2 = connection.route.is_http2();
    let kept = if fresh { None } else { peer.pool().take(connection.worker, http2) };
    let was_kept = kept.is_some();
    let sender = match kept {
        Some(sender) => sender,
        None => match pool::open(peer, connection.worker, http2).await {
            Ok(sender) => sender,
            Err(_told_by_the_peer) => return Err(Failure::NotConnected(request)),
        },
    };
    let progress = request.body().progress();
    let sent = sender.send(request);
    match within(connection.bounds.response, progress.as_deref(), sent).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(sent)) => {
            if let Some(fault) = progress.and_then(|progress| progress.trouble()) {
                return Err(Failure::Client(fault));
            }
            Err(match sent {
                Sent::Not(request) if was_kept => Failure::Stale(request),
                Sent::Not(request) => Failure::NotConnected(request),
                Sent::Perhaps(request) => Failure::Lost { kept: was_kept, request },
            })
        }
        Err(_elapsed) => Err(Failure::TimedOut),
    }
}

/// Waits for `future` at most `limit` after the last progress of the request's body.
async fn within<F: Future>(
    limit: Duration,
    progress: Option<&Progress>,
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
        let since = now_ms().saturating_sub(progress.last_ms.load(Relaxed));
        match limit.checked_sub(Duration::from_millis(since)) {
            Some(left) if !left.is_zero() => wait = left,
            _ => return Err(elapsed),
        }
    }
}

fn respond(
    mut response: Response<InstanceBody>,
    lease: Lease,
    upgrade: bool,
) -> Result<Response<ResponseBody>, Fault> {
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    prepare_response(&mut response, upgraded);
    let (parts, mut body) = response.into_parts();
    if upgraded {
        // The connection is the tunnel's from now on, which the client's own loop begins.
        let InstanceBody::One(line) = body else { return Err(Fault::Broken) };
        if !upgrade {
            return Err(Fault::Broken);
        }
        body = InstanceBody::Switched(line, lease.in_flight.load().carry_on(Unit::Connection));
    }
    Ok(Response::from_parts(parts, ResponseBody::Backend(body, lease)))
}
