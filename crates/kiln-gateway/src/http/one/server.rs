//! The loop of a client's HTTP/1 connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::http::response;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::framing::Malformed;
use super::head::RequestHead;
use super::output::{Encoder, announced};
use super::wire::{Next, Wire};
use crate::client::Stream;
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::serve::{Busy, Session};
use crate::http::{proxy, tunnel};

/// How long, and how much, a client may go on to send what was refused.
const REFUSED_TIME: Duration = Duration::from_secs(2);
const REFUSED_BYTES: u64 = 1 << 20;

/// A client's connection that is served; it is over when the connection is.
pub(crate) struct Served {
    session: Arc<Session>,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Served {
    pub(crate) fn new(session: Arc<Session>, stream: Stream) -> Self {
        let work = Box::pin(serve(Arc::clone(&session), stream));
        Self { session, work }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }
}

impl Future for Served {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.work.as_mut().poll(cx)
    }
}

/// What becomes of a connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The next request may come.
    Next,
    /// It is closed in good order.
    End,
    /// The client has gone, or has to see that its response is not whole.
    Gone,
    /// Somebody else has it.
    Taken,
}

/// What of a request is needed to write its response.
struct Asked {
    version: Version,
    /// A response to it has no body, whatever its head says.
    is_head: bool,
    keep: bool,
    trailers: bool,
}

async fn serve(session: Arc<Session>, stream: Stream) {
    let wire = Wire::new(stream, Arc::clone(&session.clock));
    loop {
        let next = poll_fn(|cx| wire.state().poll_next(cx, session.is_finishing())).await;
        match next {
            Next::Request(head) => match answer(&session, &wire, head).await {
                After::Next => wire.state().rest(),
                After::End => break,
                After::Gone | After::Taken => return,
            },
            Next::Refused(status) => {
                if refuse(&session, &wire, status).await.is_err() {
                    return;
                }
                break;
            }
            Next::End => break,
            Next::Gone => return,
        }
    }
    end(&session, wire).await;
}

/// Answers one request and writes the response.
async fn answer(session: &Arc<Session>, wire: &Wire, head: Box<RequestHead>) -> After {
    // Until the last byte of the response has been written.
    let _busy = Busy::begin(session);
    let RequestHead { parts, keep, trailers, .. } = *head;
    let asked =
        Asked { version: parts.version, is_head: parts.method == Method::HEAD, keep, trailers };
    let body = RequestBody::new(wire.body(), session.connection.bounds.body);
    let request = Box::new(Request::from_parts(parts, body));
    let mut answering = Box::pin(proxy::answer(session, request));
    let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending if wire.state().poll_gone(cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let Some(response) = answered.await else { return After::Gone };
    drop(answering);
    respond(session, wire, &asked, response).await
}

async fn respond(
    session: &Arc<Session>,
    wire: &Wire,
    asked: &Asked,
    response: Response<ResponseBody>,
) -> After {
    let (mut parts, mut body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(session, wire, asked, &parts, body).await;
    }
    let encoder = framing(&mut parts, &body, asked);
    let closes = parts.headers.contains_key(CONNECTION) || session.is_finishing();
    let keep = asked.keep && !closes && encoder != Encoder::UntilEnd;
    match (keep, asked.version) {
        (false, _) => put(&mut parts.headers, "close"),
        (true, Version::HTTP_10) => put(&mut parts.headers, "keep-alive"),
        (true, _) => {}
    }
    {
        let mut state = wire.state();
        state.expects = false;
        state.output.response(&parts, asked.version);
        state.output.text("\r\n");
    }
    let announced_by = asked.trailers.then_some(&parts.headers);
    let mut writing = Writing { encoder: Some(encoder), announced_by };
    if poll_fn(|cx| writing.poll(cx, wire, &mut body)).await.is_err() {
        if encoder == Encoder::UntilEnd {
            // Its orderly end would be that of the body.
            wire.state().stream.reset_on_close();
        }
        return After::Gone;
    }
    drop(body);
    let is_read = poll_fn(|cx| Poll::Ready(wire.state().drain(cx))).await;
    if !is_read {
        session.clock.refuse();
    }
    if keep && is_read { After::Next } else { After::End }
}

fn put(headers: &mut HeaderMap, connection: &'static str) {
    headers.insert(CONNECTION, HeaderValue::from_static(connection));
}

/// How the body of a response is written, which its head is made to say.
fn framing(parts: &mut response::Parts, body: &ResponseBody, asked: &Asked) -> Encoder {
    if asked.is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Encoder::Nothing;
    }
    if let Some(length) = parts.headers.get(CONTENT_LENGTH) {
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        return Encoder::Length(length.unwrap_or(0));
    }
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        return Encoder::Length(length);
    }
    if asked.version == Version::HTTP_10 {
        return Encoder::UntilEnd;
    }
    parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    Encoder::Chunks
}

/// A response's body on its way to the client's socket.
struct Writing<'h> {
    /// `None` when all of it is in the output.
    encoder: Option<Encoder>,
    /// The head, where the client wants fields behind the body.
    announced_by: Option<&'h HeaderMap>,
}

impl Writing<'_> {
    /// Writes until the end of the body. What has come is gathered with the head, and written when
    /// nothing more is there or the output is full.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wire: &Wire,
        body: &mut ResponseBody,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.encoder == Some(Encoder::Nothing) || body.is_end_stream() {
                self.add(wire, None)?;
            }
            if self.encoder.is_none() {
                return wire.state().poll_flush(cx);
            }
            if wire.state().output.is_full() {
                ready!(wire.state().poll_flush(cx))?;
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    self.add(wire, frame.transpose().map_err(io::Error::other)?)?;
                }
                Poll::Pending => {
                    let mut state = wire.state();
                    if let Poll::Ready(flushed) = state.poll_flush(cx) {
                        flushed?;
                    }
                    if state.poll_gone(cx) {
                        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn add(&mut self, wire: &Wire, frame: Option<Frame<Bytes>>) -> io::Result<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let output = &mut wire.state().output;
        let fields = match frame.map(Frame::into_data) {
            Some(Ok(data)) => return output.data(encoder, data).map_err(io::Error::from),
            Some(Err(frame)) => {
                announced(frame.into_trailers().unwrap_or_default(), self.announced_by)
            }
            None => HeaderMap::new(),
        };
        output.end(*encoder, &fields)?;
        self.encoder = None;
        Ok(())
    }
}

impl From<Malformed> for io::Error {
    fn from(Malformed: Malformed) -> Self {
        io::ErrorKind::InvalidData.into()
    }
}

/// Hands the connection on to a tunnel.
async fn switch(
    session: &Arc<Session>,
    wire: &Wire,
    asked: &Asked,
    parts: &response::Parts,
    mut body: ResponseBody,
) -> After {
    let Some((line, in_flight)) = body.take_switched() else { return After::Gone };
    {
        let mut state = wire.state();
        state.output.response(parts, asked.version);
        state.output.text("\r\n");
    }
    if poll_fn(|cx| wire.state().poll_flush(cx)).await.is_err() {
        return After::Gone;
    }
    wire.state().rest();
    tokio::spawn(tunnel::run(Arc::clone(session), wire.clone(), line, in_flight));
    After::Taken
}

/// Answers what is no request.
async fn refuse(session: &Session, wire: &Wire, status: StatusCode) -> io::Result<()> {
    session.clock.refuse();
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    put(&mut parts.headers, "close");
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    {
        let mut state = wire.state();
        state.output.response(&parts, Version::HTTP_11);
        state.output.text("\r\n");
    }
    poll_fn(|cx| wire.state().poll_flush(cx)).await
}

/// Closes the connection.
///
/// Closing one on which something arrives resets it, and a reset takes the answer with it: so what
/// still comes of a refused request is read and thrown away for a moment (RFC 9112, section 9.6).
async fn end(session: &Session, mut wire: Wire) {
    let closed = wire.shutdown().await;
    if closed.is_ok() && session.clock.has_refused() {
        tokio::spawn(async move {
            let mut rest = wire.take(REFUSED_BYTES);
            let mut nowhere = tokio::io::sink();
            let all = tokio::io::copy(&mut rest, &mut nowhere);
            // It is closed then, however that went.
            let _ = tokio::time::timeout(REFUSED_TIME, all).await;
        });
    }
}
