//! As much of HTTP/1.1 (RFC 9112) as a probe needs: requests without a body that matters.

use std::io::{self, BufRead, Read, Write};

/// Longest request line with headers, in bytes.
const MAX_HEAD: u64 = 16 * 1024;
/// Longest request body that is read over, in bytes.
const MAX_BODY: u64 = 16 * 1024 * 1024;

/// A request, with its target taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    query: Vec<(String, String)>,
    head_only: bool,
    /// The key of a handshake of WebSocket.
    pub(crate) websocket_key: Option<String>,
    /// Whether the client wants the connection to go on.
    pub(crate) keep_alive: bool,
}

impl Request {
    /// A `GET` of `target`, a path with an optional query.
    pub(crate) fn get(target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Self {
            path: decoded(path),
            query: query.collect(),
            head_only: false,
            websocket_key: None,
            keep_alive: true,
        }
    }

    /// The value of a query parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Reads the next request of a connection; `None` when it was closed before one began.
    pub(crate) fn read(connection: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = connection.by_ref().take(MAX_HEAD);
        let line = read_line(&mut head)?;
        if line.is_empty() {
            return Ok(None);
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(malformed("not a request line"));
        };
        let mut request = Self::get(target);
        request.head_only = method == "HEAD";
        request.keep_alive = version == "HTTP/1.1";
        let mut body = 0;
        loop {
            let line = read_line(&mut head)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("not a header"))?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("connection") {
                request.keep_alive = !value.eq_ignore_ascii_case("close")
                    && (request.keep_alive || value.eq_ignore_ascii_case("keep-alive"));
            } else if name.eq_ignore_ascii_case("content-length") {
                body = value.parse().map_err(|_| malformed("content-length is no number"))?;
            } else if name.eq_ignore_ascii_case("sec-websocket-key") {
                request.websocket_key = Some(value.to_owned());
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(malformed("transfer codings are not understood"));
            }
        }
        if body > MAX_BODY {
            return Err(malformed("the body is too long"));
        }
        io::copy(&mut connection.by_ref().take(body), &mut io::sink())?;
        Ok(Some(request))
    }
}

/// A line with its end; empty at the end of the stream. A line without an end is an error.
fn read_line(head: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    head.read_line(&mut line)?;
    if line.is_empty() || line.ends_with('\n') {
        Ok(line)
    } else {
        Err(malformed("the request ends or is too long within its head"))
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is sent back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, body: body.into() }
    }

    pub(crate) fn failed(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into() }
    }

    /// Sends the answer to `request` in one write; `keep_alive` tells what happens next.
    pub(crate) fn send(
        &self,
        request: &Request,
        keep_alive: bool,
        connection: &mut impl Write,
    ) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Unknown",
        };
        let mut text = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: {}\r\n\r\n",
            self.status,
            self.body.len(),
            if keep_alive { "keep-alive" } else { "close" },
        );
        if !request.head_only {
            text.push_str(&self.body);
        }
        connection.write_all(text.as_bytes())
    }
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Option<Request>> {
        Request::read(&mut text.as_bytes())
    }

    #[test]
    fn targets_are_taken_apart_and_decoded() {
        let request = Request::get("/write?path=%2Ftmp%2Fa+b&bytes=3&flag");
        assert_eq!(request.path, "/write");
        assert_eq!(request.parameter("path"), Some("/tmp/a b"));
        assert_eq!(request.parameter("bytes"), Some("3"));
        assert_eq!(request.parameter("flag"), Some(""));
        assert_eq!(request.parameter("none"), None);
        assert_eq!(Request::get("/%zz%4").path, "/%zz%4");
    }

    #[test]
    fn a_body_is_read_over_and_the_next_request_follows() {
        let text = "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyzGET /b HTTP/1.1\r\n\r\n";
        let mut connection = text.as_bytes();
        assert_eq!(Request::read(&mut connection).unwrap().unwrap().path, "/a");
        assert_eq!(Request::read(&mut connection).unwrap().unwrap().path, "/b");
        assert_eq!(Request::read(&mut connection).unwrap(), None);
    }

    #[test]
    fn connections_are_kept_as_version_and_header_say() {
        let kept = |text: &str| read(text).unwrap().unwrap().keep_alive;
        assert!(kept("GET / HTTP/1.1\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.0\r\n\r\n"));
        assert!(kept("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn broken_requests_are_errors() {
        for text in ["GET /\r\n\r\n", "GET / HTTP/1.1\r\nnothing\r\n\r\n", "GET / HT"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
        assert!(read(&long).is_err());
    }
}
