//! When a client's connection was last of use.
//!
//! One timer per connection looks at two marks, instead of one timer per request.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::clock::now_ms;
use crate::http::limits;

/// The marks of one connection; times by [`now_ms`].
#[derive(Debug)]
pub(crate) struct Clock {
    active: AtomicU32,
    idle_since: AtomicU64,
    /// When the head that is being received began; 0 when none is.
    head_since: AtomicU64,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Look again after this time.
    Later(Duration),
    /// The head of a request takes too long.
    Stalled,
    /// Nothing has been asked for too long.
    Idle,
}

impl Clock {
    /// With `head_begun`, the first bytes of a request have arrived already.
    pub(crate) fn new(head_begun: bool) -> Self {
        let now = now_ms();
        Self {
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            head_since: AtomicU64::new(if head_begun { now } else { 0 }),
        }
    }

    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.idle_since.store(now_ms(), Relaxed);
        self.active.fetch_sub(1, Relaxed);
    }

    fn bytes_read(&self) {
        if self.active.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(now_ms(), Relaxed);
        }
    }

    pub(crate) fn due(&self) -> Due {
        if self.active.load(Relaxed) > 0 {
            return Due::Later(limits::HEADER_TIME);
        }
        let since = |mark: u64| Duration::from_millis(now_ms().saturating_sub(mark));
        let head = self.head_since.load(Relaxed);
        if head != 0 {
            return match limits::HEADER_TIME.checked_sub(since(head)) {
                Some(left) if !left.is_zero() => Due::Later(left),
                _ => Due::Stalled,
            };
        }
        match limits::IDLE_TIME.checked_sub(since(self.idle_since.load(Relaxed))) {
            // A head may begin at any time, and its time is the shorter one.
            Some(left) if !left.is_zero() => Due::Later(left.min(limits::HEADER_TIME)),
            _ => Due::Idle,
        }
    }
}

/// A client's HTTP/1 connection that marks when a head begins.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: TokioIo<TcpStream>,
    clock: Arc<Clock>,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream, clock: Arc<Clock>) -> Self {
        Self { stream: TokioIo::new(stream), clock }
    }
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.clock.bytes_read();
        }
        read
    }
}

impl Write for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_stops_the_clock_of_its_head() {
        let clock = Clock::new(true);
        assert!(matches!(clock.due(), Due::Later(left) if left <= limits::HEADER_TIME));
        clock.head_since.store(0, Relaxed);
        clock.begin();
        clock.bytes_read();
        assert_eq!(clock.head_since.load(Relaxed), 0);
        clock.end();
        clock.bytes_read();
        assert_ne!(clock.head_since.load(Relaxed), 0);
    }
}
