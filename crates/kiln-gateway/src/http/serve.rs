//! A client's HTTP connection, from its first request to its end.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::Stream;
use crate::connection::Connection;
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::clock::{Clock, Due};
use crate::http::forward::Origin;
use crate::http::one::{ClientBody, Served};
use crate::http::{limits, proxy};
use crate::listener::{Phase, closed, closing};
use crate::route::Route;

/// Which HTTP the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0 or HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// A client's connection, shared by its requests.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) origin: Origin,
    pub(crate) clock: Arc<Clock>,
    version: Version,
    /// Whether the next response is to be the last one.
    leaving: AtomicBool,
    /// Whether the connection ends as soon as nothing is under way; for HTTP/1.
    finishing: AtomicBool,
}

impl Session {
    /// Ends the connection as soon as nothing is under way on it.
    pub(crate) fn finish(&self) {
        self.finishing.store(true, Relaxed);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.load(Relaxed)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    pub(crate) fn is_http1(&self) -> bool {
        self.version == Version::One
    }

    /// Whether its requests are noted, by the table that is current now.
    pub(crate) fn is_logged(&self) -> bool {
        let connection = &self.connection;
        connection.route.endpoint().is_some_and(|id| {
            connection.shared.current.load().endpoint(id).is_some_and(|e| e.access_log)
        })
    }
}

/// A request that is being answered; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Session>);

impl Busy {
    pub(crate) fn begin(session: &Arc<Session>) -> Self {
        session.clock.begin();
        Self(Arc::clone(session))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.clock.end();
    }
}

/// Serves a connection whose first bytes have arrived.
pub(crate) async fn serve(connection: Connection, stream: Stream, version: Version) {
    stream.limit_unread();
    let edge = matches!(connection.route, Route::Endpoint(..));
    let origin = Origin::new(connection.remote, edge, connection.secure);
    let clock = Arc::new(Clock::new(version == Version::One, connection.bounds));
    let session = Arc::new(Session {
        connection,
        origin,
        clock: Arc::clone(&clock),
        version,
        leaving: AtomicBool::new(false),
        finishing: AtomicBool::new(false),
    });
    match version {
        Version::One => {
            drive(Served::new(Arc::clone(&session), stream), &session).await;
        }
        Version::Two => {
            let service = {
                let session = Arc::clone(&session);
                service_fn(move |request| answer(Arc::clone(&session), request))
            };
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .max_concurrent_streams(limits::STREAMS)
                .max_header_list_size(u32::try_from(limits::BUFFER).unwrap_or(u32::MAX))
                .auto_date_header(false);
            drive(builder.serve_connection(TokioIo::new(stream), service), &session).await;
        }
    }
}

async fn answer(
    session: Arc<Session>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let limit = session.connection.bounds.body;
    let request = request.map(|body| RequestBody::new(ClientBody::two(body), limit));
    Ok(proxy::answer(&session, Box::new(request)).await)
}

/// A connection that can be asked to end after what is in flight: with `Connection: close`
/// in HTTP/1.1 and GOAWAY in HTTP/2.
trait Graceful: Future {
    fn finish(self: Pin<&mut Self>);
}

impl Graceful for Served {
    fn finish(self: Pin<&mut Self>) {
        self.session().finish();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<Stream>, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, ResponseBody>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// How often a connection whose listener was left is looked at.
const LEAVING_LOOK: Duration = Duration::from_millis(250);

/// Drives a connection to its end, which comes by itself, by its clock, or by the listener.
async fn drive(connection: impl Graceful, session: &Session) {
    let mut connection = pin!(connection);
    let mut phase = session.connection.phase.clone();
    let crowd = &session.connection.shared.crowd;
    let mut check = pin!(sleep(crowd.patience(session.connection.bounds.head)));
    let end = loop {
        tokio::select! {
            _ended = connection.as_mut() => return,
            end = closing(&mut phase) => break end,
            () = check.as_mut() => match session.clock.due(crowd.is_short()) {
                Due::Later(wait) => check.as_mut().reset(Instant::now() + wait),
                Due::Stalled => return,
                Due::Idle => break Phase::Closing(Instant::now() + session.connection.bounds.head),
            },
        }
    };
    let deadline = match end {
        Phase::Leaving(deadline) => {
            if session.is_http1() && !last_request(connection.as_mut(), session, deadline).await {
                return;
            }
            deadline
        }
        Phase::Closing(deadline) => deadline,
        Phase::Open => return,
    };
    connection.as_mut().finish();
    tokio::select! {
        _ended = connection => {}
        () = sleep_until(deadline) => {}
    }
}

/// Lets a client of HTTP/1 ask once more, which may be under way already: there is no other way
/// to tell it that the connection is to end. HTTP/2 has one. Returns whether the connection is
/// still there.
async fn last_request(
    mut connection: Pin<&mut impl Graceful>,
    session: &Session,
    deadline: Instant,
) -> bool {
    session.leaving.store(true, Relaxed);
    let mut phase = session.connection.phase.clone();
    let began = Instant::now();
    loop {
        tokio::select! {
            _ended = connection.as_mut() => return false,
            () = closed(&mut phase) => return true,
            () = sleep(LEAVING_LOOK) => {}
        }
        // What was asked in time is answered, however long that takes.
        let idle = session.clock.idle_for().min(began.elapsed());
        if idle >= limits::LAST_REQUEST || Instant::now() >= deadline {
            return true;
        }
    }
}
