//! The stream of a client, in the clear or through TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::listener::socket;

/// A client's connection as bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As they are on the wire.
    Plain(TcpStream),
    /// Through TLS, with what was read of it already to see what the client speaks.
    Tls(Box<Secured>),
}

/// A TLS connection of which the beginning may have been read.
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    /// Read, and to be read again from `taken` on.
    first: Vec<u8>,
    taken: usize,
}

impl Secured {
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, first: Vec::new(), taken: 0 }
    }

    /// The first bytes, of which more than before are waited for; they stay unread.
    pub(crate) async fn peek(&mut self) -> io::Result<&[u8]> {
        let mut buffer = [0; 64];
        let length = self.stream.read(&mut buffer).await?;
        self.first.extend_from_slice(&buffer[..length]);
        Ok(&self.first)
    }
}

impl Stream {
    /// The socket beneath.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(secured) => secured.stream.get_ref().0,
        }
    }

    /// See [`socket::limit_unread`].
    pub(crate) fn limit_unread(&self) {
        socket::limit_unread(self.socket());
    }

    /// See [`socket::reset_on_close`].
    pub(crate) fn reset_on_close(&self) {
        socket::reset_on_close(self.socket());
    }

    /// The address at which the client has reached the gateway.
    pub(crate) fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.socket().local_addr()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(secured) => {
                let left = &secured.first[secured.taken..];
                if left.is_empty() {
                    return Pin::new(&mut secured.stream).poll_read(cx, buffer);
                }
                let length = left.len().min(buffer.remaining());
                buffer.put_slice(&left[..length]);
                secured.taken += length;
                if secured.taken == secured.first.len() {
                    (secured.first, secured.taken) = (Vec::new(), 0);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(secured) => Pin::new(&mut secured.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(secured) => Pin::new(&mut secured.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(secured) => Pin::new(&mut secured.stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(secured) => secured.stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(secured) => Pin::new(&mut secured.stream).poll_write_vectored(cx, slices),
        }
    }
}
