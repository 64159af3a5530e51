//! What a client or an instance may ask of the gateway, in bytes and time.

use std::time::Duration;

use kiln_model::handling::Limits;

/// The largest head of a message, and what is buffered of one connection in one direction.
pub(crate) const BUFFER: usize = 64 * 1024;

/// The most header lines of a message.
pub(crate) const HEADERS: usize = 128;

/// Requests that one HTTP/2 connection may have in flight.
pub(crate) const STREAMS: u32 = 256;

/// What a listener that has been handed over waits for of an idle connection: one more request,
/// which is told to be the last.
pub(crate) const LAST_REQUEST: Duration = Duration::from_secs(5);

/// While descriptors are short, heads get and idle connections are kept at most this long.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

/// The bounds of one connection, which an endpoint may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// How long a client may take for the head of a request, from its first byte; also for the
    /// first byte itself and for the handshake of TLS.
    pub(crate) head: Duration,
    /// How long a client's connection is kept without a request.
    pub(crate) idle: Duration,
    /// How long an instance may take for the head of its response, from the last byte of the
    /// request; also how long a client may pause within a request's body.
    pub(crate) response: Duration,
    /// The largest body of a request, bytes.
    pub(crate) body: Option<u64>,
    /// How long a client of a UDP endpoint is remembered without a datagram.
    pub(crate) silence: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            response: Duration::from_secs(120),
            body: None,
            silence: Duration::from_secs(30),
        }
    }
}

impl Bounds {
    /// What an endpoint says, and the rest as usual.
    pub(crate) fn of(limits: &Limits) -> Self {
        let usual = Self::default();
        Self {
            head: limits.head.map_or(usual.head, Duration::from),
            idle: limits.idle.map_or(usual.idle, Duration::from),
            response: limits.response.map_or(usual.response, Duration::from),
            body: limits.body.map(|bytes| bytes.0),
            silence: limits.idle.map_or(usual.silence, Duration::from),
        }
    }
}
