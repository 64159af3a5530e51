//! Clients: a plain blocking one that sees every byte, and hyper's for HTTP/2.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// One HTTP/1.1 connection.
pub(crate) struct Http1 {
    stream: BufReader<TcpStream>,
}

/// A response with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Http1 {
    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub(crate) fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes())?;
        self.read()
    }

    /// Reads a response with a known length or none.
    pub(crate) fn read(&mut self) -> std::io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |n| n.parse().unwrap());
        answer.body.resize(length, 0);
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    pub(crate) fn stream(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.stream
    }
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    Http1::connect(address)?.get(path)
}

/// Sends requests over one HTTP/2 connection while `go_on` says so; returns how many were
/// answered with 200, or the first failure.
pub(crate) async fn http2_load(
    address: SocketAddr,
    go_on: impl Fn() -> bool,
) -> Result<u64, String> {
    let say = |error: &dyn std::error::Error| format!("{error}: {:?}", error.source());
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| say(&e))?;
    stream.set_nodelay(true).map_err(|e| say(&e))?;
    let io = TokioIo::new(stream);
    let handshake = http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.map_err(|e| say(&e))?;
    tokio::spawn(connection);
    let mut count = 0;
    while go_on() {
        let request = Request::get(format!("http://{address}/slow/1"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.map_err(|e| say(&e))?;
        let status = response.status();
        response.into_body().collect().await.map_err(|e| say(&e))?;
        if status != 200 {
            return Err(format!("status {status}"));
        }
        count += 1;
    }
    Ok(count)
}

/// Sends one request over an HTTP/2 connection and waits until the other side has closed the
/// connection; returns the response's status and whether the end was orderly.
pub(crate) async fn http2_until_closed(address: SocketAddr, path: &str) -> (u16, bool) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{address}{path}"));
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await;
    let response = response.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), connection).await;
    (status, matches!(ended, Ok(Ok(Ok(())))))
}

/// Calls over one HTTP/2 connection, all at once: the body of each answer, and its trailer
/// `grpc-status`.
pub(crate) async fn http2_call(address: SocketAddr, count: usize) -> Vec<(String, String)> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let request = Request::post(format!("http://{address}/shop.Shop/Call"));
                let request = request.header("te", "trailers");
                let body = http_body_util::Full::new(Bytes::from_static(b"hello"));
                let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
                assert_eq!(response.status(), 200);
                let body = response.into_body().collect().await.unwrap();
                let trailers = body.trailers().cloned().unwrap_or_default();
                let status = trailers.get("grpc-status").map(|s| s.to_str().unwrap().to_owned());
                let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                (text, status.unwrap_or_default())
            })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

/// As [`http2_load`], for a client that makes another connection when it is told that the one
/// it has is to end.
pub(crate) async fn http2_steady(
    address: SocketAddr,
    go_on: impl Fn() -> bool,
) -> Result<u64, String> {
    let say = |error: &dyn std::error::Error| format!("HTTP/2: {error}: {:?}", error.source());
    let mut count = 0;
    let mut unsent = None;
    while go_on() {
        let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| say(&e))?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| say(&e))?;
        tokio::spawn(connection);
        while go_on() {
            let request = unsent.take().unwrap_or_else(|| {
                let request = Request::get(format!("http://{address}/slow/1"));
                request.body(Empty::<Bytes>::new()).unwrap()
            });
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let status = response.status();
                    response.into_body().collect().await.map_err(|e| say(&e))?;
                    if status != 200 {
                        return Err(format!("HTTP/2: status {status}"));
                    }
                    count += 1;
                }
                Err(mut error) => {
                    unsent = error.take_message();
                    if unsent.is_none() {
                        return Err(say(&error.into_error()));
                    }
                    break;
                }
            }
        }
    }
    Ok(count)
}
