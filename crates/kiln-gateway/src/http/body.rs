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
use crate::http::one::{ClientBody, Line};
use crate::http::serve::Busy;
use crate::load::InFlight;
use crate::peer::Peer;
use crate::pool;
use crate::stats::Going;

/// A client's body on its way to an instance.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none.
    None,
    /// Passed on as it comes.
    Stream { body: ClientBody, progress: Arc<Progress>, left: u64 },
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
    #[error("the body is malformed")]
    Malformed,
    #[error("the connection ended within the body")]
    Cut(#[source] std::io::Error),
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
    pub(crate) fn new(body: ClientBody, limit: Option<u64>) -> Self {
        if matches!(body, ClientBody::None) {
            return RequestBody::None;
        }
        let left = limit.unwrap_or(u64::MAX);
        let progress =
            Arc::new(Progress { last_ms: AtomicU64::new(now_ms()), trouble: AtomicU8::new(0) });
        RequestBody::Stream { body, progress, left }
    }

    /// Whether it says itself that it is larger than it may be.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            RequestBody::None => false,
            RequestBody::Stream { body, left, .. } => body.size_hint().lower() > *left,
        }
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
                Some(Err(error))
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

/// What an instance sends back.
#[derive(Debug)]
pub(crate) enum InstanceBody {
    /// It was taken out.
    None,
    /// A body over HTTP/1, with the connection.
    One(Box<Line>),
    /// A body over HTTP/2, with its place on the connection.
    Two { body: Incoming, _stream: pool::Stream },
    /// Another protocol, which has the connection from now on.
    Switched(Box<Line>, InFlight),
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// From an instance, which counts as busy until the end of it.
    Backend(InstanceBody, Lease),
    /// The gateway's own words.
    Text(Option<Bytes>, Option<Box<Note>>),
}

impl ResponseBody {
    /// The connection to an instance that has agreed to another protocol.
    pub(crate) fn take_switched(&mut self) -> Option<(Box<Line>, InFlight)> {
        let ResponseBody::Backend(body, _) = self else { return None };
        match std::mem::replace(body, InstanceBody::None) {
            InstanceBody::Switched(line, in_flight) => Some((line, in_flight)),
            _ => None,
        }
    }
}

impl InstanceBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            InstanceBody::None | InstanceBody::Switched(..) => Poll::Ready(None),
            InstanceBody::One(line) => line.poll_frame(cx),
            InstanceBody::Two { body, .. } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ResponseBody::Backend(body, lease) => {
                let frame = ready!(body.poll_frame(cx));
                if let (Some(note), Some(Ok(frame))) = (&mut lease.note, &frame)
                    && let Some(data) = frame.data_ref()
                {
                    note.add(data.len());
                }
                Poll::Ready(frame)
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
            ResponseBody::Backend(InstanceBody::One(line), _) => line.is_end(),
            ResponseBody::Backend(InstanceBody::Two { body, .. }, _) => body.is_end_stream(),
            ResponseBody::Backend(..) => true,
            ResponseBody::Text(text, _) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Backend(InstanceBody::One(line), _) => {
                line.left().map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            ResponseBody::Backend(InstanceBody::Two { body, .. }, _) => body.size_hint(),
            ResponseBody::Backend(..) => SizeHint::with_exact(0),
            ResponseBody::Text(text, _) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let ResponseBody::Backend(body, lease) = self
            && let InstanceBody::One(line) = std::mem::replace(body, InstanceBody::None)
            && line.is_reusable()
        {
            pool::give_back(&lease.peer, lease.worker, line);
        }
    }
}

/// What a request holds until the end of its response.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) peer: Arc<Peer>,
    pub(crate) worker: usize,
    pub(crate) in_flight: InFlight,
    pub(crate) _busy: Busy,
    pub(crate) _place: Option<Place>,
    pub(crate) _going: Option<Going>,
    pub(crate) note: Option<Box<Note>>,
}
