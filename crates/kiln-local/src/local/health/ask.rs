//! Probes by TCP and HTTP, through sockets made inside an instance's network.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use kiln_model::spec::server::Probe;
use kiln_netns::Namespace;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest status line that is read.
const STATUS_LINE: usize = 4096;

/// Where an instance is.
pub(super) struct Place<'a> {
    pub(super) namespace: &'a Path,
    pub(super) address: Ipv4Addr,
}

/// What a probe asks, in a few words.
pub(super) fn name(probe: &Probe) -> String {
    match probe {
        Probe::Http { port, path, .. } => format!("GET {path} on port {port}"),
        Probe::Tcp { port } => format!("TCP port {port}"),
        Probe::Grpc { port, .. } => format!("gRPC health on port {port}"),
        Probe::Log { .. } => "log".to_owned(),
        Probe::Running { .. } => "running".to_owned(),
    }
}

/// Whether a connection is accepted.
pub(super) async fn tcp(place: &Place<'_>, port: u16) -> Result<(), String> {
    connect(place, port).await.map(drop).map_err(|e| format!("TCP port {port}: {e}"))
}

/// Whether `GET path` is answered with `wanted`, or any status of 200 to 399.
pub(super) async fn http(
    place: &Place<'_>,
    port: u16,
    path: &str,
    wanted: Option<u16>,
) -> Result<(), String> {
    let asked = format!("GET {path} on port {port}");
    let found = get(place, port, path).await.map_err(|e| format!("{asked}: {e}"))?;
    let well = wanted.map_or((200..400).contains(&found), |wanted| found == wanted);
    if well { Ok(()) } else { Err(format!("{asked}: status {found}")) }
}

/// A connection to a port of the instance.
pub(super) async fn connect(place: &Place<'_>, port: u16) -> io::Result<TcpStream> {
    let namespace = Namespace::open(place.namespace).map_err(io::Error::other)?;
    let socket = namespace
        .tcp_connecting(SocketAddrV4::new(place.address, port))
        .map_err(io::Error::other)?;
    let stream = TcpStream::from_std(socket)?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// The status of the answer to a GET.
async fn get(place: &Place<'_>, port: u16, path: &str) -> io::Result<u16> {
    let mut stream = connect(place, port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}:{port}\r\nUser-Agent: kiln-health\r\nConnection: close\r\n\r\n",
        place.address
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(256);
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    status(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

/// The status in a status line (RFC 9112, section 4).
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let code = rest.get(2..5)?;
    (rest.get(1) == Some(&b' ')).then_some(())?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// This process's own network, as an instance would be reached.
    const HERE: &str = "/proc/self/ns/net";

    fn place() -> Place<'static> {
        Place { namespace: Path::new(HERE), address: Ipv4Addr::LOCALHOST }
    }

    /// A server that gives one connection this answer; its port.
    fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn status_lines() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503 Service Unavailable\r\nx"), Some(503));
        for bad in [&b""[..], b"HTTP/2 200", b"HTTP/1.1", b"HTTP/1.1 2x0 OK\n", b"SSH-2.0\r\n"] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn http_is_well_by_its_status() {
        let get = async |answer, wanted| http(&place(), server(answer), "/healthz", wanted).await;
        assert_eq!(get("HTTP/1.1 204 No Content\r\n\r\n", None).await, Ok(()));
        assert_eq!(get("HTTP/1.1 302 Found\r\n\r\n", None).await, Ok(()));
        assert_eq!(get("HTTP/1.1 503 Busy\r\n\r\n", Some(503)).await, Ok(()));
        let said = get("HTTP/1.1 503 Busy\r\n\r\n", None).await.unwrap_err();
        assert!(said.contains("GET /healthz") && said.ends_with("status 503"), "{said}");
        let said = get("SSH-2.0-OpenSSH\r\n", None).await.unwrap_err();
        assert!(said.ends_with("the answer is not HTTP"), "{said}");
    }

    #[tokio::test]
    async fn tcp_is_well_where_somebody_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(tcp(&place(), port).await, Ok(()));
        // Nobody listens there; one of the ports that are given out might be taken meanwhile.
        let said = tcp(&place(), 1).await.unwrap_err();
        assert!(said.contains("refused"), "{said}");
    }
}
