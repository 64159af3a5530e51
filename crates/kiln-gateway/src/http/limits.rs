//! What a client or an instance may ask of the gateway, in bytes and time.

use std::time::Duration;

/// The largest head of a message, and what is buffered of one connection in one direction.
pub(crate) const BUFFER: usize = 64 * 1024;

/// The most header lines of a message.
pub(crate) const HEADERS: usize = 128;

/// How long a client may take for the head of a request, from its first byte.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(10);

/// How long a client's connection is kept without a request.
pub(crate) const IDLE_TIME: Duration = Duration::from_secs(75);

/// How long an instance may take for the head of its response, from the last byte of the
/// request; also how long a client may pause within a request's body.
pub(crate) const RESPONSE_TIME: Duration = Duration::from_secs(120);

/// Requests that one HTTP/2 connection may have in flight.
pub(crate) const STREAMS: u32 = 256;
