//! HTTP/2 by hand: frames as bytes (RFC 9113, section 4), and what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITISED: u8 = 0x20;

/// The ping by which it is seen that a connection lives.
const LIFE: [u8; 8] = *b"alive???";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that is not indexed (RFC 7541, section 6.2.2), with a name of its own.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The fields of a request for `/` by GET or POST, and others behind them.
pub(crate) fn fields(method: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let mut block: Vec<u8> =
        [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")]
            .iter()
            .flat_map(|(name, value)| field(name, value))
            .collect();
    block.extend(others.iter().flat_map(|(name, value)| field(name, value)));
    block
}

/// A whole GET.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields("GET", &[]))
}

/// The head of a POST whose body follows.
pub(crate) fn post(stream: u32, others: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields("POST", others))
}

pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// What came back on one connection.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Status of the response on each stream; 0 for what is not told apart here.
    pub(crate) answers: Vec<(u32, u16)>,
    /// Bytes of bodies.
    pub(crate) body: usize,
    pub(crate) resets: Vec<(u32, u32)>,
    pub(crate) goaway: Option<u32>,
    /// Pings that were answered, but for the one that ends the conversation.
    pub(crate) pings: Vec<[u8; 8]>,
    pub(crate) settings_taken: usize,
    pub(crate) alive: bool,
    pub(crate) closed: bool,
}

/// A conversation: what is sent, then everything that comes until the connection ends, or lives
/// on demonstrably.
pub(crate) fn talk(address: SocketAddr, bytes: &[u8]) -> Seen {
    let mut stream = connect(address);
    // What is refused may be closed before all of it is sent.
    let _ = stream.write_all(bytes);
    let mut seen = Seen::default();
    // Answers come in their own time, a ping's at once: it is sent when others had theirs.
    let mut patience = Instant::now() + Duration::from_millis(400);
    let mut pinged = false;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut held = Vec::new();
    while !seen.closed && !seen.alive {
        assert!(Instant::now() < deadline, "neither alive nor closed: {seen:?}");
        if !pinged && Instant::now() >= patience {
            pinged = true;
            let _ = stream.write_all(&frame(PING, 0, 0, &LIFE));
        }
        let mut buffer = [0; 16384];
        match stream.read(&mut buffer) {
            Ok(0) => seen.closed = true,
            Ok(length) => held.extend(&buffer[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => seen.closed = true,
        }
        while let Some(frame) = take(&mut held) {
            if frame.kind != SETTINGS && !pinged {
                patience = Instant::now() + Duration::from_millis(150);
            }
            seen.note(&frame);
        }
    }
    seen
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn take(held: &mut Vec<u8>) -> Option<Frame> {
    let length = u32::from_be_bytes([0, *held.first()?, *held.get(1)?, *held.get(2)?]) as usize;
    if held.len() < 9 + length {
        return None;
    }
    let bytes: Vec<u8> = held.drain(..9 + length).collect();
    let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
    Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
}

impl Seen {
    fn note(&mut self, frame: &Frame) {
        let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
        match frame.kind {
            HEADERS => {
                // Entries of the static table (RFC 7541, appendix A).
                let status = match frame.payload.first() {
                    Some(0x88) => 200,
                    Some(0x8c) => 400,
                    _ => 0,
                };
                self.answers.push((frame.stream, status));
            }
            DATA => self.body += frame.payload.len(),
            RST_STREAM => self.resets.push((frame.stream, code(0))),
            GOAWAY => self.goaway = Some(code(4)),
            SETTINGS if frame.flags & ACK != 0 => self.settings_taken += 1,
            PING if frame.flags & ACK != 0 && frame.payload == LIFE => self.alive = true,
            PING if frame.flags & ACK != 0 => {
                self.pings.push(frame.payload.clone().try_into().unwrap());
            }
            _ => {}
        }
    }
}
