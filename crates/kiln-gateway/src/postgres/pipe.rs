//! Bytes that have come and are not looked at, and bytes that are to go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Scanner;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// What an empty buffer may keep of its memory, so that an idle session holds little.
const KEPT: usize = 512;

thread_local! {
    static SCRATCH: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; CHUNK].into());
}

/// What comes from one side.
#[derive(Debug, Default)]
pub(super) struct Inlet {
    /// What could not be passed on yet.
    pub(super) kept: Vec<u8>,
    pub(super) scanner: Scanner,
}

impl Inlet {
    /// Reads once and has `scan` look at all that is there; it says how much of it is done with.
    /// Returns how many bytes have come: none at the end.
    pub(super) fn poll_read<R: AsyncRead + Unpin, E>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        scan: impl FnOnce(&mut Scanner, &[u8]) -> Result<usize, E>,
    ) -> Poll<io::Result<Result<usize, E>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(Ok(0)));
            }
            let scanned = if self.kept.is_empty() {
                let done = scan(&mut self.scanner, read);
                if let Ok(done) = done {
                    self.kept.extend_from_slice(&read[done..]);
                }
                done
            } else {
                self.kept.extend_from_slice(read);
                self.scan(scan)
            };
            Poll::Ready(Ok(scanned.map(|_| read.len())))
        })
    }

    /// Has `scan` look at what was kept.
    pub(super) fn scan<E>(
        &mut self,
        scan: impl FnOnce(&mut Scanner, &[u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let done = scan(&mut self.scanner, &self.kept)?;
        if done == self.kept.len() {
            self.kept = Vec::new();
        } else {
            self.kept.drain(..done);
        }
        Ok(done)
    }
}

/// What goes to one side.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    bytes: Vec<u8>,
    sent: usize,
    /// Whether something was written that the stream may still hold.
    unflushed: bool,
}

impl Outlet {
    /// What is to go, to append to.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes all that there is.
    pub(super) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.bytes[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.unflushed = true;
        }
        if self.sent > 0 {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The same, waited for. What is left when it is not waited for any more stays to go.
    pub(super) async fn flush<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx, to)).await
    }
}
