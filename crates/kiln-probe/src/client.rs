//! Reaching others: plain TCP, and HTTP over it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::{dns, errno};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is taken, in bytes.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;

/// Whether `address` (`HOST:PORT`) takes connections.
pub(crate) fn connect(address: &str) -> String {
    match stream(address) {
        Ok(_) => "open".to_owned(),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "refused".to_owned(),
            io::ErrorKind::TimedOut => "timeout".to_owned(),
            _ => errno::of(&error),
        },
    }
}

/// The body at `url`, which starts with `http://`.
pub(crate) fn get(url: &str) -> io::Result<String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| io::Error::other("not an http:// URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = stream(&with_port)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    body(&answer).map(str::to_owned)
}

/// The body of a whole answer, if its status is 200 and it came whole.
fn body(answer: &str) -> io::Result<&str> {
    let cut = || io::Error::other("the answer is cut");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split_ascii_whitespace().nth(1) != Some("200") {
        return Err(io::Error::other(format!("{status}: {body}")));
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        value.trim().parse().ok().filter(|_: &usize| name.eq_ignore_ascii_case("content-length"))
    });
    match length {
        Some(length) => body.get(..length).ok_or_else(cut),
        None => Ok(body),
    }
}

fn stream(address: &str) -> io::Result<TcpStream> {
    let (host, port) =
        address.rsplit_once(':').ok_or_else(|| io::Error::other("the port is missing"))?;
    let port = port.parse().map_err(|_| io::Error::other("the port is no number"))?;
    let mut last = io::Error::other("no address");
    for ip in dns::resolve(host).map_err(|error| io::Error::other(format!("{host}: {error}")))? {
        match TcpStream::connect_timeout(&SocketAddr::new(ip.into(), port), CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_good_answers_have_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap(), "ok");
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nall of it").unwrap(), "all of it");
        assert!(body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok").is_err());
        let refused = body("HTTP/1.1 503 Busy\r\n\r\nlater").unwrap_err();
        assert_eq!(refused.to_string(), "HTTP/1.1 503 Busy: later");
    }
}
