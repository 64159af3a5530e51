//! What goes on for a while: downloads, messages by WebSocket (RFC 6455), and bytes that come back.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::http::Request;

/// What RFC 6455 has added to a client's key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Pieces of a download.
const PIECES: usize = 20;

/// The longest message that comes back, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// Serves a request that is one of these; `None` where it is none. The connection is over then.
pub(crate) fn serve(
    request: &Request,
    reader: &mut impl Read,
    writer: &mut impl Write,
) -> Option<io::Result<()>> {
    let number =
        |name, usual| request.parameter(name).and_then(|n| n.parse().ok()).unwrap_or(usual);
    match request.path.as_str() {
        "/download" => Some(download(number("bytes", 1 << 20), number("ms", 1000), writer)),
        "/echo" => {
            let key = request.websocket_key.as_deref()?;
            Some(upgrade(key, writer).and_then(|()| messages(reader, writer)))
        }
        _ => None,
    }
}

/// So many bytes, evenly over so many milliseconds. Each is the place where it stands, modulo 251.
fn download(bytes: u64, ms: u64, writer: &mut impl Write) -> io::Result<()> {
    let bytes = usize::try_from(bytes.min(1 << 28)).unwrap_or(0);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n");
    writer.write_all(head.as_bytes())?;
    let body: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    for piece in body.chunks(bytes.div_ceil(PIECES).max(1)) {
        writer.write_all(piece)?;
        thread::sleep(Duration::from_millis(ms) / u32::try_from(PIECES).unwrap_or(1));
    }
    Ok(())
}

fn upgrade(key: &str, writer: &mut impl Write) -> io::Result<()> {
    let accept = STANDARD.encode(Sha1::digest(format!("{key}{MAGIC}")));
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket";
    write!(writer, "{head}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
}

/// Sends each message back, until the client closes.
fn messages(reader: &mut impl Read, writer: &mut impl Write) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut long = [0; 2];
                reader.read_exact(&mut long)?;
                usize::from(u16::from_be_bytes(long))
            }
            127 => return Err(io::Error::other("too long a message")),
            short => usize::from(short),
        };
        let mut mask = [0; 4];
        reader.read_exact(&mut mask)?;
        let mut message = vec![0; length];
        reader.read_exact(&mut message)?;
        message.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let mut frame = vec![head[0]];
        match u8::try_from(length) {
            Ok(short) if short < 126 => frame.push(short),
            _ => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        frame.extend(message);
        writer.write_all(&frame)?;
        // The fourth bit of a control frame; 8 is the close.
        if head[0] & 0x0f == 8 {
            return Ok(());
        }
    }
}

/// Sends back whatever comes, on each connection, until the process ends.
pub(crate) fn echo(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // A client that goes away in the middle is its own affair.
        thread::spawn(move || drop(back(stream)));
    }
}

fn back(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = vec![0; MAX_MESSAGE];
    loop {
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..read])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let mut said = Vec::new();
        upgrade("dGhlIHNhbXBsZSBub25jZQ==", &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{said}");
    }

    #[test]
    fn messages_come_back_until_the_close() {
        let asked = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2, 0x88, 0x80, 0, 0, 0, 0];
        let mut said = Vec::new();
        messages(&mut &asked[..], &mut said).unwrap();
        assert_eq!(said, [0x81, 2, b'h', b'i', 0x88, 0]);
    }
}
