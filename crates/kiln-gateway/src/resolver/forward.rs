//! Questions about foreign names, asked of the resolvers that the host uses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::resolver::message::answers;

/// Where the host's resolvers stand (resolv.conf(5)); read anew for each question, since it
/// may change at any time and a question to it is rare.
const CONFIG: &str = "/etc/resolv.conf";

/// How many of them are asked, one after the other (as many as the C library uses).
const SERVERS: usize = 3;

/// How long each of them may take.
const SERVER_TIME: Duration = Duration::from_secs(2);

/// The longest datagram that is passed back.
const DATAGRAM: usize = 4096;

/// The first answer of a resolver; `None` when none has answered.
pub(crate) async fn over_udp(query: &[u8]) -> Option<Vec<u8>> {
    for server in servers().await {
        if let Ok(Ok(reply)) = timeout(SERVER_TIME, ask_udp(server, query)).await {
            return Some(reply);
        }
    }
    None
}

/// The same over TCP, for answers that are too long for a datagram.
pub(crate) async fn over_tcp(query: &[u8]) -> Option<Vec<u8>> {
    for server in servers().await {
        if let Ok(Ok(reply)) = timeout(SERVER_TIME, ask_tcp(server, query)).await {
            return Some(reply);
        }
    }
    None
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], query) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    if answers(&reply, query) { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
}

async fn servers() -> Vec<SocketAddr> {
    let text = tokio::task::spawn_blocking(|| std::fs::read_to_string(CONFIG)).await;
    text.map_or_else(|_| Vec::new(), |text| parse(&text.unwrap_or_default()))
}

/// The `nameserver` lines.
fn parse(config: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let address = line.trim().strip_prefix("nameserver")?.trim();
        let address: IpAddr = address.split(['%', ' ', '\t']).next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    };
    config.lines().filter_map(server).take(SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read() {
        let config =
            "# x\nsearch a.b\nnameserver 10.0.0.2\n nameserver  fe80::1%eth0 \nnameserver x\n";
        let expected: [SocketAddr; 2] =
            ["10.0.0.2:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()];
        assert_eq!(parse(config), expected);
    }
}
