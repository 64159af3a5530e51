//! Bytes on their way to a socket: heads and bodies of HTTP/1 messages.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::ext::ReasonPhrase;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};
use hyper::http::response;
use hyper::{Request, Version};
use tokio::io::AsyncWrite;

use super::framing::Malformed;

/// Pieces of bodies up to this size are gathered with what is written beside them; larger ones
/// are written from where they are.
const SMALL: usize = 16 * 1024;

/// What a head usually needs, with a short body.
const USUAL: usize = 1000;

/// What a buffer without use may keep.
const KEPT: usize = 4 * 1024;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoder {
    /// So many bytes more.
    Length(u64),
    /// In chunks.
    Chunks,
    /// As it is; its end is that of the connection.
    UntilEnd,
    /// Not at all.
    Nothing,
}

/// What is to be written, in this order: the gathered bytes, a large piece, the end of its chunk.
#[derive(Debug, Default)]
pub(super) struct Output {
    gathered: Vec<u8>,
    /// Of the gathered bytes.
    written: usize,
    large: Bytes,
    behind: &'static [u8],
    /// Whether anything has been written since [`Output::begin`].
    has_begun: bool,
}

impl Output {
    /// Begins to count anew whether anything was written.
    pub(super) fn begin(&mut self) {
        self.has_begun = false;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written == self.gathered.len() && self.large.is_empty() && self.behind.is_empty()
    }

    /// Whether something has to be written before more is added.
    pub(super) fn is_full(&self) -> bool {
        !self.large.is_empty() || !self.behind.is_empty() || self.gathered.len() >= SMALL
    }

    /// Lets go of memory that nothing waits in.
    pub(super) fn relax(&mut self) {
        if self.is_empty() {
            self.gathered = Vec::new();
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        self.gathered.extend_from_slice(text.as_bytes());
    }

    /// The head of a request, in HTTP/1.1. Fields of its framing are added by the caller.
    pub(super) fn request<B>(&mut self, request: &Request<B>) {
        self.gathered.reserve(USUAL);
        self.text(request.method().as_str());
        self.text(" ");
        self.text(request.uri().path_and_query().map_or("/", |target| target.as_str()));
        self.text(" HTTP/1.1\r\n");
        self.fields(request.headers());
    }

    /// The head of a response in this version, without the empty line behind it.
    pub(super) fn response(&mut self, parts: &response::Parts, version: Version) {
        let status = parts.status;
        self.gathered.reserve(USUAL);
        self.text(if version == Version::HTTP_10 { "HTTP/1.0 " } else { "HTTP/1.1 " });
        self.text(status.as_str());
        self.text(" ");
        match parts.extensions.get::<ReasonPhrase>() {
            Some(reason) => self.gathered.extend_from_slice(reason.as_bytes()),
            None => self.text(status.canonical_reason().unwrap_or_default()),
        }
        self.text("\r\n");
        self.fields(&parts.headers);
    }

    pub(super) fn fields(&mut self, fields: &HeaderMap) {
        fields.iter().for_each(|(name, value)| self.field(name, value));
    }

    pub(super) fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.text(name.as_str());
        self.text(": ");
        self.gathered.extend_from_slice(value.as_bytes());
        self.text("\r\n");
    }

    /// A piece of a body. More than was said is malformed.
    pub(super) fn data(&mut self, encoder: &mut Encoder, data: Bytes) -> Result<(), Malformed> {
        match encoder {
            _ if data.is_empty() => return Ok(()),
            Encoder::Nothing => return Err(Malformed),
            Encoder::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Malformed)?;
            }
            Encoder::Chunks => {
                // Writing to a vector cannot fail.
                let _ = write!(self.gathered, "{:x}\r\n", data.len());
            }
            Encoder::UntilEnd => {}
        }
        let behind: &[u8] = if *encoder == Encoder::Chunks { b"\r\n" } else { b"" };
        if data.len() <= SMALL {
            self.gathered.extend_from_slice(&data);
            self.gathered.extend_from_slice(behind);
        } else {
            (self.large, self.behind) = (data, behind);
        }
        Ok(())
    }

    /// The end of a body, with the fields behind it. Less than was said is malformed.
    pub(super) fn end(&mut self, encoder: Encoder, fields: &HeaderMap) -> Result<(), Malformed> {
        match encoder {
            Encoder::Length(left) if left > 0 => return Err(Malformed),
            Encoder::Chunks => {
                self.text("0\r\n");
                self.fields(fields);
                self.text("\r\n");
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes until nothing is left.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let gathered = &self.gathered[self.written..];
            let mut to = Pin::new(&mut *to);
            let length = if self.large.is_empty() && self.behind.is_empty() {
                ready!(to.as_mut().poll_write(cx, gathered))?
            } else {
                let slices = [gathered, &self.large, self.behind].map(IoSlice::new);
                ready!(to.as_mut().poll_write_vectored(cx, &slices))?
            };
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(length);
        }
        self.written = 0;
        if self.gathered.capacity() > KEPT {
            self.gathered = Vec::new();
        } else {
            self.gathered.clear();
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut length: usize) {
        self.has_begun = true;
        let gathered = length.min(self.gathered.len() - self.written);
        self.written += gathered;
        length -= gathered;
        let large = length.min(self.large.len());
        self.large.advance(large);
        self.behind = &self.behind[length - large..];
    }
}

/// Of the fields after a body those that its head has announced.
pub(super) fn announced(fields: HeaderMap, by: Option<&HeaderMap>) -> HeaderMap {
    let Some(head) = by else { return HeaderMap::new() };
    let is_named = |name: &HeaderName| {
        let lists = head.get_all(TRAILER).iter().filter_map(|list| list.to_str().ok());
        lists
            .flat_map(|list| list.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(name.as_str()))
    };
    let mut kept = HeaderMap::new();
    for (name, value) in &fields {
        if is_named(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is written to a reader that takes so much at a time.
    async fn written(output: &mut Output, most: usize) -> Vec<u8> {
        use tokio::io::AsyncReadExt;
        let (mut near, mut far) = tokio::io::duplex(most);
        let mut all = Vec::new();
        let write = async {
            std::future::poll_fn(|cx| output.poll_write(cx, &mut near)).await.unwrap();
            drop(near);
        };
        let ((), read) = tokio::join!(write, far.read_to_end(&mut all));
        read.unwrap();
        all
    }

    #[tokio::test]
    async fn small_and_large_pieces_are_written_in_order() {
        let large = Bytes::from(vec![7; SMALL + 1]);
        for most in [1000, 100_000] {
            let (mut output, mut encoder) = (Output::default(), Encoder::Chunks);
            output.data(&mut encoder, Bytes::from_static(b"abc")).unwrap();
            assert!(!output.is_full());
            output.data(&mut encoder, large.clone()).unwrap();
            assert!(output.is_full() && !output.has_begun());
            let mut all = written(&mut output, most).await;
            assert!(output.is_empty() && output.has_begun());
            output.end(encoder, &HeaderMap::new()).unwrap();
            all.extend(written(&mut output, most).await);
            let expected = [b"3\r\nabc\r\n4001\r\n", &large[..], b"\r\n0\r\n\r\n"].concat();
            assert!(all == expected, "{} bytes", all.len());
        }
    }

    #[test]
    fn more_or_less_than_was_said_is_malformed() {
        let (mut output, mut encoder) = (Output::default(), Encoder::Length(3));
        assert_eq!(output.data(&mut encoder, Bytes::from_static(b"ab")), Ok(()));
        assert_eq!(output.end(encoder, &HeaderMap::new()), Err(Malformed));
        assert_eq!(output.data(&mut encoder, Bytes::from_static(b"cd")), Err(Malformed));
        assert_eq!(output.data(&mut Encoder::Nothing, Bytes::from_static(b"x")), Err(Malformed));
    }
}
