//! A connection to an instance that speaks HTTP/1: one request at a time.
//!
//! It is driven by whoever waits for the response, and afterwards by whoever reads its body: both
//! also send what is left of the request, so an instance may answer before it has all of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_LENGTH, HeaderMap, TRAILER};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Input;
use super::framing::{Decoder, Piece};
use super::head::{self, ResponseHead};
use super::output::{Encoder, Output, announced};
use crate::http::body::{BodyError, RequestBody};
use crate::load::{Enlisted, Load};

/// The connection.
#[derive(Debug)]
pub(crate) struct Line {
    /// Lets the instance be severed. Ends before the socket is closed.
    enlisted: Enlisted,
    stream: TcpStream,
    input: Input,
    output: Output,
    /// What is still to be sent of the request.
    sending: Option<Sending>,
    decoder: Decoder,
    /// Whether the connection can carry another request after this one.
    keep: bool,
    /// Whether the instance takes nothing more.
    is_deaf: bool,
}

/// The body of a request on its way.
#[derive(Debug)]
struct Sending {
    body: RequestBody,
    encoder: Encoder,
    /// The head, where it announces fields behind the body.
    announced: Option<HeaderMap>,
    /// Whether something was taken from the client.
    is_begun: bool,
}

/// A request that got no response.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Nothing of it was sent.
    Not(Box<Request<RequestBody>>),
    /// Something was; the request is still there where it has no body.
    Perhaps(Option<Box<Request<RequestBody>>>),
}

/// The instance has sent nothing that is a response, or the client nothing that is a body.
struct Failed;

impl Line {
    /// A fresh connection to the instance that `load` counts for.
    pub(crate) fn new(stream: TcpStream, load: &Arc<Load>) -> io::Result<Box<Self>> {
        let enlisted = load.enlist(&stream)?;
        Ok(Box::new(Self {
            enlisted,
            stream,
            input: Input::default(),
            output: Output::default(),
            sending: None,
            decoder: Decoder::Done,
            keep: true,
            is_deaf: false,
        }))
    }

    /// Whether the instance keeps the connection open and has said nothing unasked. This asks
    /// the kernel only when it has announced something.
    pub(crate) fn is_open(&self) -> bool {
        let silent = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.stream.try_read(&mut [0]).is_err_and(silent)
    }

    /// Whether request and response have come to their ends, and another one may follow.
    pub(crate) fn is_reusable(&self) -> bool {
        self.keep
            && self.decoder.is_done()
            && self.sending.is_none()
            && self.output.is_empty()
            && self.input.bytes.is_empty()
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        mut self: Box<Self>,
        mut request: Box<Request<RequestBody>>,
    ) -> Result<Response<Box<Self>>, Sent> {
        let had_body = self.begin(&mut request);
        let head = std::future::poll_fn(|cx| self.poll_head(cx, request.method())).await;
        if let Ok(head) = head {
            return Ok(Response::from_parts(head.parts, self));
        }
        let unsent = !self.output.has_begun();
        let is_whole = match self.sending.take() {
            Some(sending) if unsent && !sending.is_begun => {
                *request.body_mut() = sending.body;
                true
            }
            _ => !had_body,
        };
        Err(if unsent && is_whole {
            Sent::Not(request)
        } else {
            Sent::Perhaps(is_whole.then_some(request))
        })
    }

    /// Puts the head of a request into the output; whether there is a body.
    fn begin(&mut self, request: &mut Request<RequestBody>) -> bool {
        let body = std::mem::replace(request.body_mut(), RequestBody::None);
        let headers = request.headers();
        self.keep = true;
        self.decoder = Decoder::Done;
        self.input.relax(true);
        self.output.begin();
        self.output.request(request);
        let length = headers.get(CONTENT_LENGTH);
        if matches!(body, RequestBody::None) {
            // What has no body where one is usual says so (RFC 9110, section 8.6).
            let is_usual = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
            if is_usual && length.is_none() {
                self.output.text("content-length: 0\r\n");
            }
            self.output.text("\r\n");
            return false;
        }
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let encoder = length.map_or(Encoder::Chunks, Encoder::Length);
        if encoder == Encoder::Chunks {
            self.output.text("transfer-encoding: chunked\r\n");
        }
        self.output.text("\r\n");
        let announced = headers.contains_key(TRAILER).then(|| headers.clone());
        self.sending = Some(Sending { body, encoder, announced, is_begun: false });
        true
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<ResponseHead, Failed>> {
        self.pump(cx)?;
        loop {
            if !self.input.bytes.is_empty() {
                match head::response(&self.input.bytes, method) {
                    Ok(None) => {}
                    Ok(Some(head)) => {
                        self.input.bytes.advance(head.length);
                        self.input.relax(false);
                        let status = head.parts.status;
                        // Others come before the response, and concern this connection alone.
                        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                            continue;
                        }
                        self.decoder = head.body;
                        self.keep &= head.keep;
                        return Poll::Ready(Ok(head));
                    }
                    Err(_malformed) => return Poll::Ready(Err(Failed)),
                }
            }
            match ready!(self.input.poll_read(cx, &mut self.stream)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(Failed)),
            }
        }
    }

    /// Sends what can be sent of the request.
    fn pump(&mut self, cx: &mut Context<'_>) -> Result<(), Failed> {
        while !self.is_deaf {
            while let Some(sending) = &mut self.sending
                && !self.output.is_full()
            {
                match Pin::new(&mut sending.body).poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(frame) => {
                        sending.is_begun = true;
                        if self.add(frame).is_err() {
                            self.keep = false;
                            return Err(Failed);
                        }
                    }
                }
            }
            if self.output.is_empty() {
                return Ok(());
            }
            match self.output.poll_write(cx, &mut self.stream) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // It takes nothing more, but may have answered already.
                    (self.keep, self.is_deaf) = (false, true);
                    if self.output.has_begun() {
                        self.sending = None;
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) -> Result<(), Failed> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let fields = match frame {
            Some(Err(_)) => return Err(Failed),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let added = self.output.data(&mut sending.encoder, data);
                    added.map_err(|_more_than_said| Failed)?;
                    if !sending.body.is_end_stream() {
                        return Ok(());
                    }
                    HeaderMap::new()
                }
                Err(frame) => {
                    let fields = frame.into_trailers().unwrap_or_default();
                    announced(fields, sending.announced.as_ref())
                }
            },
            None => HeaderMap::new(),
        };
        let ended = self.output.end(sending.encoder, &fields);
        self.sending = None;
        ended.map_err(|_less_than_said| Failed)
    }

    /// The next piece of the response's body.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.pump(cx).is_err() {
            return self.cut(io::ErrorKind::ConnectionAborted.into());
        }
        loop {
            match self.decoder.take(&mut self.input.bytes) {
                Ok(Some(Piece::Data(data))) => {
                    self.input.relax(self.decoder.is_done());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Piece::Trailers(fields))) if !fields.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(_) if self.decoder.is_done() => {
                    self.input.relax(true);
                    return Poll::Ready(None);
                }
                Ok(_) => {}
                Err(_malformed) => return self.cut(io::ErrorKind::InvalidData.into()),
            }
            match ready!(self.input.poll_read(cx, &mut self.stream)) {
                Ok(1..) => {}
                Ok(0) if self.decoder == Decoder::UntilEnd && !self.enlisted.is_severed() => {
                    self.decoder = Decoder::Done;
                    return Poll::Ready(None);
                }
                Ok(0) => return self.cut(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return self.cut(error),
            }
        }
    }

    fn cut<T>(&mut self, error: io::Error) -> Poll<Option<Result<T, BodyError>>> {
        self.keep = false;
        Poll::Ready(Some(Err(BodyError::Cut(error))))
    }

    /// Whether all of the response's body has been read.
    pub(crate) fn is_end(&self) -> bool {
        self.decoder.is_done()
    }

    /// The bytes that are left of the body, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.decoder {
            Decoder::Done => Some(0),
            Decoder::Length(left) => Some(left),
            Decoder::Chunks(_) | Decoder::UntilEnd => None,
        }
    }
}

/// What follows the switch to another protocol.
impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.give(buffer) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
