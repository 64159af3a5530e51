//! What lasts: downloads, connections that speak WebSocket, and plain TCP.

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::SESSION;
use crate::clients::{Client, Error, Outcome, bounded};
use crate::pace::Beat;
use crate::requests::NAME;

/// Bytes of a download.
const BYTES: u64 = 1 << 20;

/// What is sent in each message of a session.
const MESSAGE: &[u8] = b"there and back again";

/// The key of the handshake of WebSocket, and what has to be answered (RFC 6455, section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How the head of a response ends.
const END: &[u8] = b"\r\n\r\n";

/// A download, which must be whole and right.
pub(crate) async fn download(client: &Client, beat: &mut Beat) -> Outcome {
    let from = beat.next().await;
    let stream = TcpStream::connect(client.aim.http).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors reach whoever waits for the body.
    tokio::spawn(async move { drop(connection.await) });
    let path = format!("/download?bytes={BYTES}&ms={}", SESSION.as_millis());
    let request = Request::get(path).header(HOST, NAME).header(CONNECTION, "close");
    let request = request.body(Empty::<&[u8]>::new())?;
    let response = bounded(async { Ok(sender.send_request(request).await?) }).await?;
    if response.status() != 200 {
        return Err(format!("answered {}", response.status()).into());
    }
    client.answered(from);
    let (mut body, mut place) = (response.into_body(), 0_u64);
    while let Some(frame) = bounded(async { Ok(body.frame().await.transpose()?) }).await? {
        for byte in frame.data_ref().into_iter().flatten() {
            if u64::from(*byte) != place % 251 {
                return Err(format!("byte {place} is {byte}").into());
            }
            place += 1;
        }
    }
    if place == BYTES { Ok(()) } else { Err(format!("{place} of {BYTES} bytes").into()) }
}

/// A WebSocket: each message must come back, and the close as well.
pub(crate) async fn web_socket(client: &Client, beat: &mut Beat) -> Outcome {
    let mut stream = bounded(open(client)).await?;
    let (until, mut sent) = (Instant::now() + SESSION, vec![0x81, 0x80 | length(MESSAGE)]);
    // The mask is nothing, which is a mask.
    sent.extend([0; 4]);
    sent.extend(MESSAGE);
    let expected = [&[0x81, length(MESSAGE)], MESSAGE].concat();
    while Instant::now() < until {
        let from = beat.next().await;
        bounded(exchange(&mut stream, &sent, &expected)).await?;
        client.answered(from);
        beat.answered();
    }
    bounded(exchange(&mut stream, &[0x88, 0x80, 0, 0, 0, 0], &[0x88, 0])).await
}

fn length(message: &[u8]) -> u8 {
    u8::try_from(message.len()).unwrap_or(0)
}

/// The handshake.
async fn open(client: &Client) -> Result<TcpStream, Error> {
    let mut stream = TcpStream::connect(client.aim.http).await?;
    stream.set_nodelay(true)?;
    let head = format!(
        "GET /echo HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    // A byte at a time: what follows belongs to the session.
    while !answer.ends_with(END) {
        answer.push(stream.read_u8().await?);
    }
    let answer = String::from_utf8_lossy(&answer);
    if answer.starts_with("HTTP/1.1 101") && answer.contains(ACCEPT) {
        return Ok(stream);
    }
    Err(format!("answered {answer:?}").into())
}

/// Plain TCP: each message must come back, and the end as well.
pub(crate) async fn tcp(client: &Client, beat: &mut Beat) -> Outcome {
    let address = client.aim.tcp.unwrap_or(client.aim.http);
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let until = Instant::now() + SESSION;
    while Instant::now() < until {
        let from = beat.next().await;
        bounded(exchange(&mut stream, MESSAGE, MESSAGE)).await?;
        client.answered(from);
        beat.answered();
    }
    stream.shutdown().await?;
    match bounded(async { Ok(stream.read(&mut [0]).await?) }).await? {
        0 => Ok(()),
        _ => Err("more came than was sent".into()),
    }
}

async fn exchange(stream: &mut TcpStream, sent: &[u8], expected: &[u8]) -> Outcome {
    stream.write_all(sent).await?;
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await?;
    if answer == expected { Ok(()) } else { Err("another message came back".into()) }
}
