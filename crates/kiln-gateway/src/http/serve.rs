//! A client's HTTP connection, from its first request to its end.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::{Connection, Route};
use crate::http::body::ResponseBody;
use crate::http::clock::{Clock, Due, Watched};
use crate::http::forward::Origin;
use crate::http::{limits, proxy};
use crate::listener::{closing, socket};

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
pub(crate) async fn serve(connection: Connection, stream: TcpStream, version: Version) {
    socket::limit_unread(&stream);
    let edge = matches!(connection.route, Route::Endpoint(..));
    let origin = Origin::new(connection.remote, edge);
    let clock = Arc::new(Clock::new(version == Version::One));
    let session = Arc::new(Session { connection, origin, clock: Arc::clone(&clock) });
    let service = {
        let session = Arc::clone(&session);
        service_fn(move |request| answer(Arc::clone(&session), request))
    };
    match version {
        Version::One => {
            let mut builder = http1::Builder::new();
            builder
                .max_buf_size(limits::BUFFER)
                .max_header_size(limits::BUFFER)
                .max_headers(limits::HEADERS)
                .header_read_timeout(None)
                .auto_date_header(false);
            let io = Watched::new(stream, clock);
            drive(builder.serve_connection(io, service).with_upgrades(), &session).await;
        }
        Version::Two => {
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
    Ok(proxy::answer(&session, request).await)
}

/// A connection that can be asked to end after what is in flight: with `Connection: close`
/// in HTTP/1.1 and GOAWAY in HTTP/2.
trait Graceful: Future {
    fn finish(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::UpgradeableConnection<Watched, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<TcpStream>, S, TokioExecutor>
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

/// Drives a connection to its end, which comes by itself, by its clock, or by the listener.
async fn drive(connection: impl Graceful, session: &Session) {
    let mut connection = pin!(connection);
    let mut phase = session.connection.phase.clone();
    let mut check = pin!(sleep(limits::HEADER_TIME));
    let deadline = loop {
        tokio::select! {
            _ended = connection.as_mut() => return,
            deadline = closing(&mut phase) => break deadline,
            () = check.as_mut() => match session.clock.due() {
                Due::Later(wait) => check.as_mut().reset(Instant::now() + wait),
                Due::Stalled => return,
                Due::Idle => break Instant::now() + limits::HEADER_TIME,
            },
        }
    };
    connection.as_mut().finish();
    tokio::select! {
        _ended = connection => {}
        () = sleep_until(deadline) => {}
    }
}
