//! What a client speaks, told by its first bytes, which stay unread.

use std::io;
use std::time::Duration;

use kiln_model::route::Protocol;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::Secured;

/// How long a client of an endpoint that may be either is waited for; after that it is one
/// that expects the server to speak first.
const SILENCE: Duration = Duration::from_millis(50);

/// A pause after first bytes that do not yet say enough, which hardly ever happens.
const MORE: Duration = Duration::from_millis(2);

/// What HTTP/2 with prior knowledge starts with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method that is taken for one.
const METHOD_LIMIT: usize = 20;

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// The client closed, or said nothing in time.
    Nothing,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something else.
    Bytes,
}

/// Looks at the first bytes of a connection that speaks HTTP or may do so. Who speaks it has
/// `patience` for them.
pub(crate) async fn first_bytes(
    stream: &TcpStream,
    protocol: Protocol,
    patience: Duration,
) -> io::Result<Sniffed> {
    let (wait, otherwise) = waited(protocol, patience);
    let deadline = Instant::now() + wait;
    let mut buffer = [0; PREFACE.len()];
    loop {
        let Ok(peeked) = timeout_at(deadline, stream.peek(&mut buffer)).await else {
            return Ok(otherwise);
        };
        let seen = &buffer[..peeked?];
        match known(seen, protocol) {
            Some(sniffed) => return Ok(sniffed),
            None if Instant::now() >= deadline => return Ok(otherwise),
            None => sleep_until(Instant::now() + MORE).await,
        }
    }
}

/// The same through TLS, for a client that has not said what it speaks.
pub(crate) async fn first_secured_bytes(
    stream: &mut Secured,
    protocol: Protocol,
    patience: Duration,
) -> io::Result<Sniffed> {
    let (wait, otherwise) = waited(protocol, patience);
    let deadline = Instant::now() + wait;
    let mut length = 0;
    loop {
        let Ok(peeked) = timeout_at(deadline, stream.peek()).await else { return Ok(otherwise) };
        let seen = peeked?;
        if seen.len() == length {
            return Ok(Sniffed::Nothing);
        }
        length = seen.len();
        if let Some(sniffed) = known(seen, protocol) {
            return Ok(sniffed);
        }
    }
}

/// How long first bytes are waited for, and what it means when there are none.
fn waited(protocol: Protocol, patience: Duration) -> (Duration, Sniffed) {
    if protocol.is_http() { (patience, Sniffed::Nothing) } else { (SILENCE, Sniffed::Bytes) }
}

fn known(seen: &[u8], protocol: Protocol) -> Option<Sniffed> {
    match protocol {
        _ if seen.is_empty() => Some(Sniffed::Nothing),
        Protocol::Http | Protocol::H2c => told_apart(seen),
        Protocol::Auto | Protocol::Tcp | Protocol::Udp => guessed(seen),
        Protocol::Database => Some(Sniffed::Bytes),
    }
}

/// HTTP/1 or HTTP/2; `None` when more bytes are needed to say.
fn told_apart(seen: &[u8]) -> Option<Sniffed> {
    if seen.starts_with(PREFACE) {
        Some(Sniffed::Http2)
    } else if PREFACE.starts_with(seen) {
        None
    } else {
        Some(Sniffed::Http1)
    }
}

/// HTTP or something else: HTTP/1 starts with a method in capitals, a space, and `/`, `*` or
/// the beginning of a URI or host.
fn guessed(seen: &[u8]) -> Option<Sniffed> {
    if PREFACE.starts_with(seen) || seen.starts_with(PREFACE) {
        return told_apart(seen);
    }
    let method = seen.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    match seen.get(method..) {
        _ if method > METHOD_LIMIT => Some(Sniffed::Bytes),
        Some([]) => None,
        Some([b' ']) if method > 0 => None,
        Some([b' ', b'/' | b'*', ..]) if method > 0 => Some(Sniffed::Http1),
        Some([b' ', b, ..]) if method > 0 && b.is_ascii_alphanumeric() => Some(Sniffed::Http1),
        _ => Some(Sniffed::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Sniffed::Http1)),
            (b"OPTIONS * HTTP/1.1", Some(Sniffed::Http1)),
            (b"GET http://x/", Some(Sniffed::Http1)),
            (b"M-SEARCH * HTTP/1.1", Some(Sniffed::Http1)),
            (PREFACE, Some(Sniffed::Http2)),
            (b"PRI * HT", None),
            (b"P", None),
            (b"PO", None),
            (b"GET", None),
            (b"GET ", None),
            (b"\x16\x03\x01\x02\x00", Some(Sniffed::Bytes)),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Some(Sniffed::Bytes)),
            (b"ehlo example.org\r\n", Some(Sniffed::Bytes)),
            (b"AAAAAAAAAAAAAAAAAAAAAAAA", Some(Sniffed::Bytes)),
        ] {
            assert_eq!(guessed(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(told_apart(b"\x16\x03"), Some(Sniffed::Http1));
        assert_eq!(told_apart(b"PRI * X"), Some(Sniffed::Http1));
    }
}
