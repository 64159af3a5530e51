//! When a client's connection was last of use.
//!
//! One timer per connection looks at two marks, instead of one timer per request.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::client::Stream;
use crate::clock::now_ms;
use crate::http::limits::{self, Bounds};
use crate::http::strict::{self, Strict};

/// The marks of one connection; times by [`now_ms`].
#[derive(Debug)]
pub(crate) struct Clock {
    active: AtomicU32,
    idle_since: AtomicU64,
    /// When the head that is being received began; 0 when none is.
    head_since: AtomicU64,
    /// Whether the connection has switched to another protocol.
    tunnel: AtomicBool,
    /// Whether the client may still be sending what is not taken any more.
    refused: AtomicBool,
    bounds: Bounds,
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
    pub(crate) fn new(head_begun: bool, bounds: Bounds) -> Self {
        let now = now_ms();
        Self {
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            head_since: AtomicU64::new(if head_begun { now } else { 0 }),
            tunnel: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            bounds,
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

    /// What follows belongs to another protocol.
    pub(crate) fn becomes_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    /// The client's request was refused before its end.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    /// What is to be done now. `short`: the process is short of descriptors.
    pub(crate) fn due(&self, short: bool) -> Due {
        let limit = |usual: Duration| if short { usual.min(limits::SHORT) } else { usual };
        let (head_limit, idle_limit) = (limit(self.bounds.head), limit(self.bounds.idle));
        if self.active.load(Relaxed) > 0 {
            return Due::Later(head_limit);
        }
        let since = |mark: u64| Duration::from_millis(now_ms().saturating_sub(mark));
        let head = self.head_since.load(Relaxed);
        if head != 0 {
            return match head_limit.checked_sub(since(head)) {
                Some(left) if !left.is_zero() => Due::Later(left.min(head_limit)),
                _ => Due::Stalled,
            };
        }
        match idle_limit.checked_sub(since(self.idle_since.load(Relaxed))) {
            // A head may begin at any time, and its time is the shorter one.
            Some(left) if !left.is_zero() => Due::Later(left.min(head_limit)),
            _ => Due::Idle,
        }
    }

    /// How long nothing has been asked; zero while something is.
    pub(crate) fn idle_for(&self) -> Duration {
        if self.active.load(Relaxed) > 0 || self.head_since.load(Relaxed) != 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(now_ms().saturating_sub(self.idle_since.load(Relaxed)))
    }
}

/// A client's HTTP/1 connection that marks when a head begins, and lets nothing through that
/// could be understood in two ways.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Taken out only when this is dropped.
    stream: Option<Stream>,
    clock: Arc<Clock>,
    strict: Strict,
}

impl Watched {
    pub(crate) fn new(stream: Stream, clock: Arc<Clock>) -> Self {
        Self { stream: Some(stream), clock, strict: Strict::new() }
    }
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let watched = &mut *self;
        if watched.strict.has_refused() {
            // The parser waits for the end of a head before it looks at what it has.
            let length = cursor.remaining().min(strict::END.len());
            cursor.put_slice(&strict::END[..length]);
            return Poll::Ready(Ok(()));
        }
        // SAFETY: nothing is ever made uninitialised: the buffer is only filled.
        let mut buffer = ReadBuf::uninit(unsafe { cursor.as_mut() });
        let Some(stream) = &mut watched.stream else { return Poll::Ready(Ok(())) };
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        watched.clock.bytes_read();
        let tunnel = &watched.clock.tunnel;
        watched.strict.look(buffer.filled_mut(), || tunnel.load(Relaxed));
        let length = buffer.filled().len();
        // SAFETY: so many bytes have just been filled.
        unsafe { cursor.advance(length) };
        Poll::Ready(Ok(()))
    }
}

impl Watched {
    fn open(&mut self) -> std::io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }
}

impl Write for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.open()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.open()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.open()?.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_write_vectored)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.open()?.poll_write_vectored(cx, slices)
    }
}

/// How long, and how much, a client may go on to send what was refused.
const REFUSED_TIME: Duration = Duration::from_secs(2);
const REFUSED_BYTES: u64 = 1 << 20;

impl Drop for Watched {
    /// Closing a connection on which something arrives resets it, and a reset takes the answer
    /// with it: so what still comes of a refused request is read and thrown away for a moment
    /// (RFC 9112, section 9.6).
    fn drop(&mut self) {
        let refused = self.strict.has_refused() || self.clock.refused.load(Relaxed);
        if let (true, Some(stream)) = (refused, self.stream.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let mut rest = stream.take(REFUSED_BYTES);
                let mut nowhere = tokio::io::sink();
                let all = tokio::io::copy(&mut rest, &mut nowhere);
                // It is closed then, however that went.
                let _ = tokio::time::timeout(REFUSED_TIME, all).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_stops_the_clock_of_its_head() {
        let clock = Clock::new(true, Bounds::default());
        assert!(matches!(clock.due(false), Due::Later(left) if left <= Bounds::default().head));
        clock.head_since.store(0, Relaxed);
        clock.begin();
        clock.bytes_read();
        assert_eq!(clock.head_since.load(Relaxed), 0);
        clock.end();
        clock.bytes_read();
        assert_ne!(clock.head_since.load(Relaxed), 0);
    }
}
