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

    /// A question for `a.b` with the number 7.
    const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";

    fn reply_to(query: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        reply
    }

    #[tokio::test]
    async fn only_the_answer_to_the_question_is_taken() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serve = async {
            let mut buffer = [0; 512];
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            let reply = reply_to(&buffer[..length]);
            let mut other_number = reply.clone();
            other_number[1] = 8;
            let mut other_name = reply.clone();
            other_name[13] = b'x';
            for packet in [&other_number[..], &other_name, &buffer[..length], &reply] {
                server.send_to(packet, client).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(ask_udp(address, QUERY), serve);
        assert_eq!(answer.unwrap(), reply_to(QUERY));
    }

    #[tokio::test]
    async fn long_answers_come_over_tcp() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            let mut reply = reply_to(&query);
            reply.resize(5000, 0);
            stream.write_u16(5000).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask_tcp(address, QUERY), serve);
        assert_eq!(answer.unwrap().len(), 5000);
    }

    #[test]
    fn resolvers_are_read() {
        let config =
            "# x\nsearch a.b\nnameserver 10.0.0.2\n nameserver  fe80::1%eth0 \nnameserver x\n";
        let expected: [SocketAddr; 2] =
            ["10.0.0.2:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()];
        assert_eq!(parse(config), expected);
    }
}
