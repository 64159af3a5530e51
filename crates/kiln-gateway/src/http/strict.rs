//! Looks over the bytes of a client's HTTP/1 connection, so that nobody behind the gateway can
//! understand them differently (RFC 9112, sections 2.2, 5 and 6.3; "request smuggling").
//!
//! The parser behind it is lenient where the standard lets it: it takes a bare line feed for the
//! end of a line, and of two lengths the one that counts. Here these are refused: bare CR and LF,
//! folded fields, two lengths, a length beside chunks, an encoding other than `chunked`. What is
//! refused is overwritten by zeros, which no parser takes, so that the client gets a 400 and the
//! connection ends. The bytes are followed through bodies to find where the next head begins.

use memchr::memchr;

/// The longest line of which the beginning is kept; longer heads are refused behind.
const LONGEST_LINE: usize = 64 * 1024;

/// What follows the bytes that were overwritten: the end of something that is no head.
pub(crate) const END: &[u8] = b"\0\r\n\r\n";

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Lines before the request line, which may be empty.
    Start,
    /// A field of a head, or the empty line after them.
    Fields,
    /// So many bytes of a body or chunk.
    Bytes { left: u64, chunk: bool },
    /// The line end after a chunk.
    ChunkEnd,
    /// The line with the size of the next chunk.
    ChunkSize,
    /// A field after the last chunk, or the empty line after them.
    Trailers,
    /// The connection may have become a tunnel.
    PerhapsTunnel,
    /// Nothing is looked at any more.
    Off,
    /// Everything is refused.
    Refused,
}

/// How the head that is being read frames its body.
#[derive(Debug, Clone, Copy, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// Follows one connection.
#[derive(Debug)]
pub(crate) struct Strict {
    state: State,
    framing: Framing,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

/// Something that is not taken.
struct Violation;

impl Strict {
    pub(crate) fn new() -> Self {
        Self { state: State::Start, framing: Framing::default(), line: Vec::new() }
    }

    /// Looks at the next bytes and overwrites what is refused. `is_tunnel` is asked where the
    /// last request wanted to switch to another protocol.
    pub(crate) fn look(&mut self, bytes: &mut [u8], is_tunnel: impl Fn() -> bool) {
        let (mut at, mut head) = (0, 0);
        while at < bytes.len() {
            match self.state {
                State::Off => return,
                State::Refused => return bytes[at..].fill(0),
                State::PerhapsTunnel => {
                    self.state = if is_tunnel() { State::Off } else { State::Start };
                }
                State::Bytes { left, chunk } => {
                    let here = left.min((bytes.len() - at) as u64);
                    at += usize::try_from(here).unwrap_or(0);
                    self.state = match (left - here, chunk) {
                        (0, true) => State::ChunkEnd,
                        (0, false) => self.after_body(),
                        (left, _) => State::Bytes { left, chunk },
                    };
                }
                _ => {
                    if self.state == State::Start {
                        head = at;
                    }
                    let Some(end) = memchr(b'\n', &bytes[at..]) else {
                        return self.keep(&bytes[at..]);
                    };
                    let next = at + end + 1;
                    if self.line_ends(&bytes[at..next]).is_err() {
                        self.state = State::Refused;
                        // What has not been handed on of this head is taken back with it.
                        at = head.min(at);
                    } else {
                        at = next;
                    }
                }
            }
        }
    }

    /// Whether something was refused.
    pub(crate) fn has_refused(&self) -> bool {
        self.state == State::Refused
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > LONGEST_LINE {
            // Longer than any head may be: refused by its size behind.
            self.state = State::Off;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    /// A line has come to its end, of which `rest` is what came last.
    fn line_ends(&mut self, rest: &[u8]) -> Result<(), Violation> {
        if self.line.is_empty() {
            return self.line_is(rest);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(rest);
        self.line_is(&line)
    }

    fn line_is(&mut self, line: &[u8]) -> Result<(), Violation> {
        let line = line.strip_suffix(b"\r\n").ok_or(Violation)?;
        if memchr(b'\r', line).is_some() {
            return Err(Violation);
        }
        self.state = match self.state {
            State::Start if line.is_empty() => State::Start,
            State::Start => {
                self.framing = Framing::default();
                State::Fields
            }
            State::Fields if line.is_empty() => self.after_head()?,
            State::Fields => {
                self.framing.field(line)?;
                State::Fields
            }
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkSize => match chunk_size(line)? {
                0 => State::Trailers,
                left => State::Bytes { left, chunk: true },
            },
            State::Trailers if line.is_empty() => self.after_body(),
            State::Trailers if !is_folded(line) => State::Trailers,
            _ => return Err(Violation),
        };
        Ok(())
    }

    fn after_head(&self) -> Result<State, Violation> {
        match (self.framing.length, self.framing.chunked) {
            (Some(_), true) => Err(Violation),
            (None, true) => Ok(State::ChunkSize),
            (None | Some(0), false) => Ok(self.after_body()),
            (Some(left), false) => Ok(State::Bytes { left, chunk: false }),
        }
    }

    fn after_body(&self) -> State {
        if self.framing.upgrade { State::PerhapsTunnel } else { State::Start }
    }
}

impl Framing {
    fn field(&mut self, line: &[u8]) -> Result<(), Violation> {
        if is_folded(line) {
            return Err(Violation);
        }
        let colon = memchr(b':', line).ok_or(Violation)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // The first byte and the length tell nearly all other fields apart.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                if !digits || self.length.is_some() {
                    return Err(Violation);
                }
                self.length = Some(length.ok_or(Violation)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation);
                }
                self.chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            _ => {}
        }
        Ok(())
    }
}

/// Whether a line continues the field before it, which no one may do any more.
fn is_folded(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// The size that a chunk's line begins with: hexadecimal digits, then at most blanks and
/// extensions.
fn chunk_size(line: &[u8]) -> Result<u64, Violation> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 16 || !matches!(rest.first(), None | Some(b';')) {
        return Err(Violation);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| Violation)?;
    u64::from_str_radix(text, 16).map_err(|_| Violation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of the bytes when they come in pieces of this size.
    fn looked(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut strict = Strict::new();
        let mut all = bytes.to_vec();
        all.chunks_mut(piece).for_each(|piece| strict.look(piece, || false));
        all
    }

    const GOOD: &[u8] = b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nPOST /x HTTP/1.1\r\n\
        Content-Length: 7\r\n\r\nGET \n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
        5;a=b\r\n\n\n\n\n\n\r\n0a \r\n0123456789\r\n0\r\nx: y\r\n\r\nHEAD / HTTP/1.1\r\n\r\n";

    #[test]
    fn good_requests_pass_however_they_are_cut() {
        for piece in 1..GOOD.len() {
            assert_eq!(looked(GOOD, piece), GOOD, "{piece}");
        }
    }

    #[test]
    fn what_could_be_understood_twice_is_overwritten() {
        for bad in [
            &b"GET / HTTP/1.1\nhost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nhost: a\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost a\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 3\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nabc\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\n",
        ] {
            for piece in 1..=bad.len() {
                let both = [GOOD, bad].concat();
                let left = looked(&both, piece);
                assert_eq!(&left[..GOOD.len()], GOOD);
                assert_eq!(left.last(), Some(&0), "{} in {piece}", String::from_utf8_lossy(bad));
            }
        }
        // In one piece nothing of the head is handed on.
        let bad = b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc";
        assert!(looked(bad, 1000).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_tunnel_is_left_alone() {
        let mut strict = Strict::new();
        let mut head = b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n".to_vec();
        strict.look(&mut head, || false);
        let mut frame = b"\x81\x05hello\n\n".to_vec();
        strict.look(&mut frame, || true);
        assert_eq!(frame, b"\x81\x05hello\n\n");
    }
}
