//! As much of HTTP/2 (RFC 9113) as it takes to answer the gRPC health check, whoever asks.
//!
//! What is asked is not looked into: each stream that ends gets one answer, by [`READY`]. The
//! headers of the answer use the static table and literals only (RFC 7541).

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;

use crate::health::READY;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Serves until the process ends.
pub(crate) fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // A client that goes away in the middle is its own affair.
        thread::spawn(move || drop(converse(stream)));
    }
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    if preface != PREFACE {
        return Err(io::Error::other("not HTTP/2"));
    }
    frame(&mut stream, SETTINGS, 0, 0, &[])?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => frame(&mut stream, PING, ACK, 0, &payload)?,
            HEADERS | DATA if flags & END_STREAM != 0 => answer(&mut stream, id)?,
            _ => {}
        }
    }
}

/// One answer: headers, the message, trailers.
fn answer(stream: &mut TcpStream, id: u32) -> io::Result<()> {
    // `:status: 200` is entry 8 of the static table, `content-type` the name of entry 31.
    let mut headers = vec![0x88];
    headers.extend(literal(&[0x0f, 31 - 15], b"application/grpc"));
    frame(stream, HEADERS, END_HEADERS, id, &headers)?;
    let status = if READY.load(Ordering::Relaxed) { 1 } else { 2 };
    frame(stream, DATA, 0, id, &[0, 0, 0, 0, 2, 0x08, status])?;
    let name = [&[0x00, 11][..], b"grpc-status"].concat();
    frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &literal(&name, b"0"))
}

/// A header that is put into no table: how its name is given, then its value.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(0);
    [name, &[length], value].concat()
}

fn frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
    stream.write_all(&[&head, payload].concat())
}
