//! Bodies on their way: streamed in both directions, never gathered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::clock::now_ms;
use crate::http::serve::Busy;
use crate::load::InFlight;
use crate::peer::Peer;
use crate::pool::{self, Sender};

/// A client's body on its way to an instance.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none.
    None,
    /// Passed on as it comes; the word is when the last of it came.
    Stream(Incoming, Arc<AtomicU64>),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        if body.is_end_stream() {
            RequestBody::None
        } else {
            RequestBody::Stream(body, Arc::new(AtomicU64::new(now_ms())))
        }
    }
}

impl RequestBody {
    /// Where it is marked when the last of the body came.
    pub(crate) fn progress(&self) -> Option<Arc<AtomicU64>> {
        match self {
            RequestBody::None => None,
            RequestBody::Stream(_, progress) => Some(Arc::clone(progress)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            RequestBody::None => Poll::Ready(None),
            RequestBody::Stream(body, progress) => {
                let frame = Pin::new(body).poll_frame(cx);
                if frame.is_ready() {
                    progress.store(now_ms(), Relaxed);
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::None => true,
            RequestBody::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::None => SizeHint::with_exact(0),
            RequestBody::Stream(body, _) => body.size_hint(),
        }
    }
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// From an instance, which counts as busy until the end of it.
    Backend(Incoming, Lease),
    /// The gateway's own words.
    Text(Option<Bytes>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            ResponseBody::Backend(body, lease) => {
                let frame = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(None) = frame {
                    lease.complete = true;
                }
                frame
            }
            ResponseBody::Text(text) => Poll::Ready(text.take().map(|t| Ok(Frame::data(t)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Backend(body, _) => body.is_end_stream(),
            ResponseBody::Text(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Backend(body, _) => body.size_hint(),
            ResponseBody::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let ResponseBody::Backend(body, lease) = self
            && body.is_end_stream()
        {
            // With a known length the end is not asked for once all bytes are there.
            lease.complete = true;
        }
    }
}

/// What a request holds until the end of its response.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) peer: Arc<Peer>,
    pub(crate) worker: usize,
    pub(crate) sender: Option<Sender>,
    pub(crate) in_flight: InFlight,
    pub(crate) _busy: Busy,
    /// The response was read to its end, so the connection can be used again.
    pub(crate) complete: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take()
            && self.complete
        {
            pool::give_back(&self.peer, self.worker, sender);
        }
    }
}
