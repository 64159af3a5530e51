//! HTTP/1 on the wire: what a client sends and an instance answers, taken apart and put together.
//!
//! A message is read from the socket once, parsed once by `httparse`, and handed on as the types
//! of `http`; its body goes on in the pieces in which it came. Everything of a request, to the
//! client and to the instance, happens in the task of its connection: no queue, no other task and
//! no timer of its own is between the two sockets. A connection without a request holds no buffer.
//!
//! | part | what it does |
//! | --- | --- |
//! | `head` | heads of requests and responses, with everything refused that could be understood in two ways |
//! | `framing` | bodies: of a known length, in chunks, until the end of the connection |
//! | `output` | bytes that are to be written: heads, pieces of bodies, chunks |
//! | `wire` | the client's connection, which its loop and the body of its request share |
//! | `server` | the loop of a client's connection: a request, its response, the next one |
//! | `line` | a connection to an instance, which carries one request at a time |

mod framing;
mod head;
mod line;
mod output;
mod server;
mod wire;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

pub(crate) use line::{Line, Sent};
pub(crate) use server::Served;
pub(crate) use wire::{ClientBody, Wire};

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// A read of so many bytes lets the next one expect as many.
const LARGE: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// What has been read and not yet taken.
#[derive(Debug, Default)]
struct Input {
    bytes: BytesMut,
    /// The last read brought much, so that the next one is worth a buffer of its own.
    eager: bool,
}

impl Input {
    /// Reads once; how much, which is 0 at the end of the stream.
    ///
    /// The kernel writes into one buffer per thread, from which what has come is taken over. So
    /// no buffer waits for bytes, except within large bodies.
    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> Poll<io::Result<usize>> {
        let length = if self.eager {
            self.bytes.reserve(CHUNK);
            let spare = self.bytes.spare_capacity_mut();
            let most = spare.len().min(CHUNK);
            let mut buffer = ReadBuf::uninit(&mut spare[..most]);
            ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
            let length = buffer.filled().len();
            // SAFETY: so many bytes of the spare capacity have just been filled.
            unsafe { self.bytes.advance_mut(length) };
            length
        } else {
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
                self.bytes.extend_from_slice(buffer.filled());
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            });
            ready!(read)?
        };
        self.eager = length >= LARGE;
        Poll::Ready(Ok(length))
    }

    /// Gives what has been read to another reader; whether there was something.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let length = self.bytes.len().min(buffer.remaining());
        if length == 0 {
            return false;
        }
        buffer.put_slice(&self.bytes.split_to(length));
        self.relax(true);
        true
    }

    /// Lets go of the memory when nothing is left in it, and nothing more is to come of a body
    /// or it comes slowly.
    fn relax(&mut self, is_end: bool) {
        self.eager &= !is_end;
        if self.bytes.is_empty() && !self.eager {
            self.bytes = BytesMut::new();
        }
    }
}
