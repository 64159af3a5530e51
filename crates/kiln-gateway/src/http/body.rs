//! Bodies on their way: streamed in both directions, never gathered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::clock::now_ms;
use crate::gate::Place;
use crate::http::fault::Fault;
use crate::http::note::Note;
use crate::http::serve::Busy;
use crate::load::InFlight;
use crate::peer::Peer;
use crate::pool::{self, Sender};
use crate::stats::Going;

/// A client's body on its way to an instance.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none.
    None,
    /// Passed on as it comes.
    Stream { body: Incoming, progress: Arc<Progress>, left: u64 },
}

/// How a client's body gets on.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When the last of it came.
    pub(crate) last_ms: AtomicU64,
    trouble: AtomicU8,
}

const MALFORMED: u8 = 1;
const TOO_LARGE: u8 = 2;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is broken")]
    Broken(#[source] hyper::Error),
    #[error("the body is larger than it may be")]
    TooLarge,
}

impl Progress {
    /// What is wrong with the client's body.
    pub(crate) fn trouble(&self) -> Option<Fault> {
        match self.trouble.load(Relaxed) {
            MALFORMED => Some(Fault::BadBody),
            TOO_LARGE => Some(Fault::TooLarge),
            _ => None,
        }
    }
}

impl RequestBody {
    /// A client's body of at most `limit` bytes.
    pub(crate) fn new(body: Incoming, limit: Option<u64>) -> Result<Self, Fault> {
        if body.is_end_stream() {
            return Ok(RequestBody::None);
        }
        let left = limit.unwrap_or(u64::MAX);
        if body.size_hint().lower() > left {
            return Err(Fault::TooLarge);
        }
        let progress =
            Arc::new(Progress { last_ms: AtomicU64::new(now_ms()), trouble: AtomicU8::new(0) });
        Ok(RequestBody::Stream { body, progress, left })
    }

    /// Where it is marked how the body gets on.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            RequestBody::None => None,
            RequestBody::Stream { progress, .. } => Some(Arc::clone(progress)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let RequestBody::Stream { body, progress, left } = self.get_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        progress.last_ms.store(now_ms(), Relaxed);
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(rest) = left.checked_sub(length) {
                    *left = rest;
                    Some(Ok(frame))
                } else {
                    progress.trouble.store(TOO_LARGE, Relaxed);
                    Some(Err(BodyError::TooLarge))
                }
            }
            Some(Err(error)) => {
                progress.trouble.store(MALFORMED, Relaxed);
                Some(Err(BodyError::Broken(error)))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::None => true,
            RequestBody::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::None => SizeHint::with_exact(0),
            RequestBody::Stream { body, .. } => body.size_hint(),
        }
    }
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// From an instance, which counts as busy until the end of it.
    Backend(Incoming, Lease),
    /// The gateway's own words.
    Text(Option<Bytes>, Option<Box<Note>>),
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
                match &frame {
                    Poll::Ready(None) => lease.complete = true,
                    Poll::Ready(Some(Ok(frame))) => {
                        if let (Some(note), Some(data)) = (&mut lease.note, frame.data_ref()) {
                            note.add(data.len());
                        }
                    }
                    _ => {}
                }
                frame
            }
            ResponseBody::Text(text, note) => {
                if let (Some(note), Some(text)) = (note, &text) {
                    note.add(text.len());
                }
                Poll::Ready(text.take().map(|t| Ok(Frame::data(t))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Backend(body, _) => body.is_end_stream(),
            ResponseBody::Text(text, _) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Backend(body, _) => body.size_hint(),
            ResponseBody::Text(text, _) => {
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
    pub(crate) _place: Option<Place>,
    pub(crate) _going: Option<Going>,
    pub(crate) note: Option<Box<Note>>,
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
