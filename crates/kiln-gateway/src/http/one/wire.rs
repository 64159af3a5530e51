//! A client's HTTP/1 connection, which its loop and the body of the present request share.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Input;
use super::framing::{Decoder, Piece};
use super::head::{self, RequestHead, Scan, Scanned};
use super::output::Output;
use crate::client::Stream;
use crate::http::body::BodyError;
use crate::http::clock::Clock;

/// The connection, for whoever has it.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) stream: Stream,
    pub(super) input: Input,
    pub(super) output: Output,
    scan: Scan,
    /// The body of the present request.
    pub(super) decoder: Decoder,
    /// Whether the client waits for leave to send it.
    pub(super) expects: bool,
    /// Which request is the present one: the body of one before it gets nothing.
    serial: u64,
    clock: Arc<Clock>,
}

/// What comes next on a connection.
#[derive(Debug)]
pub(super) enum Next {
    Request(Box<RequestHead>),
    /// Nothing more.
    End,
    /// The client has gone.
    Gone,
    /// Something that is refused with this status.
    Refused(StatusCode),
}

impl Wire {
    pub(super) fn new(stream: Stream, clock: Arc<Clock>) -> Self {
        Self(Arc::new(Mutex::new(State {
            stream,
            input: Input::default(),
            output: Output::default(),
            scan: Scan::default(),
            decoder: Decoder::Done,
            expects: false,
            serial: 0,
            clock,
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // It is held within single polls of one task, so nobody has ever to wait for it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the present request.
    pub(super) fn body(&self) -> ClientBody {
        let state = self.state();
        if state.decoder.is_done() {
            return ClientBody::None;
        }
        ClientBody::One { wire: self.clone(), serial: state.serial }
    }
}

impl State {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let length = ready!(self.input.poll_read(cx, &mut self.stream))?;
        if length > 0 {
            self.clock.bytes_read();
        }
        Poll::Ready(Ok(length))
    }

    /// The next request. `finishing`: one is taken only if it has begun to arrive.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, finishing: bool) -> Poll<Next> {
        loop {
            match self.scan.look(&self.input.bytes) {
                Scanned::More => {}
                Scanned::Refused(status) => return Poll::Ready(Next::Refused(status)),
                Scanned::Head { begin, end } => return Poll::Ready(self.request(begin, end)),
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Gone),
                Poll::Pending if finishing && self.input.bytes.is_empty() => {
                    return Poll::Ready(Next::End);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn request(&mut self, begin: usize, end: usize) -> Next {
        self.input.bytes.advance(begin);
        let bytes = self.input.bytes.split_to(end - begin).freeze();
        self.input.relax(true);
        self.scan = Scan::default();
        match head::request(bytes) {
            Ok(head) => {
                self.serial += 1;
                self.decoder = head.body;
                self.expects = head.expects;
                Next::Request(Box::new(head))
            }
            Err(status) => Next::Refused(status),
        }
    }

    /// Whether the client has gone while its request is answered. What it sends already of the
    /// next one is kept; then nothing more is read.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.decoder.is_done()
            && self.input.bytes.is_empty()
            && matches!(self.poll_fill(cx), Poll::Ready(Ok(0) | Err(_)))
    }

    /// Writes all that is to be written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.output.poll_write(cx, &mut self.stream))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Throws away what is there already of a body that nobody reads; whether it ends with that.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) -> bool {
        let mut reads = 0;
        loop {
            match self.decoder.take(&mut self.input.bytes) {
                Ok(Some(_)) => {}
                Ok(None) if self.decoder.is_done() => return true,
                Ok(None) if reads < 2 => reads += 1,
                _ => return false,
            }
            if self.input.bytes.is_empty()
                && !self.decoder.is_done()
                && !matches!(self.poll_fill(cx), Poll::Ready(Ok(1..)))
            {
                return false;
            }
        }
    }

    /// After a response: what has come already may be the beginning of the next request.
    pub(super) fn rest(&mut self) {
        self.expects = false;
        self.output.relax();
        self.input.relax(true);
        if !self.input.bytes.is_empty() {
            self.clock.bytes_read();
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.decoder.take(&mut self.input.bytes) {
                Ok(Some(Piece::Data(data))) => {
                    self.input.relax(self.decoder.is_done());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Piece::Trailers(fields))) if !fields.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(_) if self.decoder.is_done() => return Poll::Ready(None),
                Ok(_) => {}
                Err(_malformed) => return Poll::Ready(Some(Err(BodyError::Malformed))),
            }
            if std::mem::take(&mut self.expects) && self.input.bytes.is_empty() {
                self.output.text("HTTP/1.1 100 Continue\r\n\r\n");
                if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                    return Poll::Ready(Some(Err(BodyError::Cut(error))));
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Some(Err(BodyError::Cut(error))));
                }
                Err(error) => return Poll::Ready(Some(Err(BodyError::Cut(error)))),
            }
        }
    }
}

/// The body of a client's request.
#[derive(Debug)]
pub(crate) enum ClientBody {
    /// There is none.
    None,
    /// On an HTTP/1 connection.
    One { wire: Wire, serial: u64 },
    /// In an HTTP/2 stream.
    Two(Incoming),
}

impl ClientBody {
    pub(crate) fn two(body: Incoming) -> Self {
        if body.is_end_stream() { ClientBody::None } else { ClientBody::Two(body) }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ClientBody::None => Poll::Ready(None),
            ClientBody::One { wire, serial } => {
                let mut state = wire.state();
                if state.serial != *serial {
                    let error = io::ErrorKind::ConnectionAborted.into();
                    return Poll::Ready(Some(Err(BodyError::Cut(error))));
                }
                state.poll_body(cx)
            }
            ClientBody::Two(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::None => true,
            ClientBody::One { wire, serial } => {
                let state = wire.state();
                state.serial == *serial && state.decoder.is_done()
            }
            ClientBody::Two(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::None => SizeHint::with_exact(0),
            ClientBody::One { wire, .. } => match wire.state().decoder {
                Decoder::Done => SizeHint::with_exact(0),
                Decoder::Length(left) => SizeHint::with_exact(left),
                Decoder::Chunks(_) | Decoder::UntilEnd => SizeHint::new(),
            },
            ClientBody::Two(body) => body.size_hint(),
        }
    }
}

/// What follows the switch to another protocol.
impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.input.give(buffer) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut state.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.state().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state().stream).poll_shutdown(cx)
    }
}
