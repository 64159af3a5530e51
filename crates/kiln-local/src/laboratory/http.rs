//! One GET, with its body: HTTP/1.1 as RFC 9112 has it, as far as an answer needs to be read.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use kiln_netns::Namespace;

/// The longest answer that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// As text; what is not UTF-8 is replaced.
    pub(super) body: String,
}

/// Opens a connection within `limit`.
pub(super) fn connect(
    network: &Namespace,
    address: SocketAddrV4,
    limit: Duration,
) -> io::Result<TcpStream> {
    let refused = |error: kiln_netns::Error| match std::error::Error::source(&error) {
        Some(cause) => io::Error::new(error.kind(), cause.to_string()),
        None => io::Error::other(error),
    };
    let stream = network.tcp_connect(address, limit).map_err(refused)?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Asks for `path`, and reads the answer within `limit`.
pub(super) fn get(
    network: &Namespace,
    address: SocketAddrV4,
    path: &str,
    limit: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + limit;
    let mut stream = connect(network, address, limit)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kiln-test\r\nConnection: close\r\n\r\n"
    );
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(answer) = read(&bytes, false) {
            return Ok(answer);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > MAX_BYTES {
            break;
        }
    }
    read(&bytes, true).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

/// The answer in `bytes`, when it is whole or nothing more will come.
fn read(bytes: &[u8], ended: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let field = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let rest = &bytes[end + 4..];
    let chunked = field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let body = if chunked {
        let (body, whole) = dechunk(rest);
        if !whole && !ended {
            return None;
        }
        body
    } else {
        let length = field("content-length").and_then(|length| length.parse::<usize>().ok());
        match length {
            Some(length) if rest.len() >= length => rest[..length].to_vec(),
            _ if status == 204 || status == 304 => Vec::new(),
            _ if ended => rest.to_vec(),
            _ => return None,
        }
    };
    Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The chunks put together, and whether the last one is there.
fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else {
            return (body, false);
        };
        let size = std::str::from_utf8(&rest[..end]).ok();
        let size = size.and_then(|size| size.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        match size {
            Some(0) => return (body, true),
            Some(size) if rest.len() - end - 2 >= size => {
                body.extend_from_slice(&rest[end + 2..end + 2 + size]);
                rest = &rest[end + 2 + size..];
                rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
            }
            _ => return (body, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str, ended: bool) -> Option<(u16, String)> {
        read(text.as_bytes(), ended).map(|answer| (answer.status, answer.body))
    }

    #[test]
    fn answers_are_whole_by_length_by_chunks_or_by_their_end() {
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(body(sized, false), Some((200, "ok".to_owned())));
        assert_eq!(body(&sized[..sized.len() - 1], false), None);
        let chunked = "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwor\r\n2;x\r\nld\r\n0\r\n\r\n";
        assert_eq!(body(chunked, false), Some((404, "world".to_owned())));
        assert_eq!(body(&chunked[..chunked.len() - 6], false), None);
        let open = "HTTP/1.0 503 Sorry\r\n\r\nlater";
        assert_eq!(body(open, false), None);
        assert_eq!(body(open, true), Some((503, "later".to_owned())));
        assert_eq!(body("SSH-2.0-x\r\n\r\n", true), None);
    }
}
