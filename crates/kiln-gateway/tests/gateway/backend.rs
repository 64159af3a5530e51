//! Instances: real servers inside a network namespace, which can be killed.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kiln_model::route::Backend as Route;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::world::Network;

/// A server that runs until it is dropped, which cuts everything that it has open.
pub(crate) struct Backend {
    pub(crate) route: Route,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a backend does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers HTTP by path, see [`respond`].
    Http,
    /// Closes each connection without a word after some HTTP responses.
    Closing,
    /// Sends its name and a line feed, then everything back.
    Bytes,
    /// Answers HTTP with 500.
    Failing,
    /// Reads a request and closes the connection without a word.
    Dropping,
    /// Answers HTTP/2 with what it is sent and trailers, as gRPC does.
    Http2,
}

impl Backend {
    pub(crate) fn http(network: &Network, instance: &str) -> Self {
        Self::start(network, instance, "127.0.0.1:0", Manner::Http)
    }

    pub(crate) fn bytes(network: &Network, instance: &str) -> Self {
        Self::start(network, instance, "127.0.0.1:0", Manner::Bytes)
    }

    /// Answers each datagram with its name and the datagram.
    pub(crate) fn datagrams(network: &Network, instance: &str) -> Self {
        let socket = network.namespace.udp_bound("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = instance.to_owned();
        let address = socket.local_addr().unwrap();
        Self::run(network, instance, address, async move {
            let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
            let mut buffer = [0; 2048];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                let answer = [name.as_bytes(), b": ", &buffer[..length]].concat();
                socket.send_to(&answer, client).await.unwrap();
            }
        })
    }

    pub(crate) fn start(network: &Network, instance: &str, at: &str, manner: Manner) -> Self {
        let listener = network.namespace.tcp_listener(at.parse().unwrap(), 1024).unwrap();
        let (name, address) = (instance.to_owned(), listener.local_addr().unwrap());
        Self::run(network, instance, address, serve(listener, name, manner))
    }

    fn run(
        network: &Network,
        instance: &str,
        address: SocketAddr,
        serve: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let route = Route {
            instance: instance.parse().unwrap(),
            network: network.id.clone(),
            address: address.to_string().parse().unwrap(),
            weight: 1,
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { route, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn serve(listener: TcpListener, name: String, manner: Manner) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = name.clone();
        tokio::spawn(async move {
            match manner {
                Manner::Http => serve_http(stream, name).await,
                Manner::Closing => drop(serve_closing(stream, &name).await),
                Manner::Dropping => {
                    let mut stream = stream;
                    let _ = stream.read(&mut [0; 4096]).await;
                }
                Manner::Bytes => drop(serve_bytes(stream, &name).await),
                Manner::Failing => {
                    let service = service_fn(|_| async {
                        let mut response = Response::new(Full::<Bytes>::default());
                        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                        Ok::<_, Infallible>(response)
                    });
                    let io = TokioIo::new(stream);
                    let _ = http1::Builder::new().serve_connection(io, service).await;
                }
                Manner::Http2 => {
                    let io = TokioIo::new(stream);
                    let service = service_fn(echo_with_trailers);
                    let builder = http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(io, service).await;
                }
            }
        });
    }
}

async fn serve_http(stream: TcpStream, name: String) {
    let service = service_fn(move |request| respond(request, name.clone()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.with_upgrades().await;
}

async fn echo_with_trailers(request: Request<Incoming>) -> Result<Response<Frames>, Infallible> {
    let version = request.version();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = format!("echo: {} over {version:?}", String::from_utf8_lossy(&body));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = vec![Ok(Frame::data(Bytes::from(text))), Ok(Frame::trailers(trailers))];
    Ok(Response::new(Frames(frames.into_iter())))
}

/// Frames that are there already.
struct Frames(std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next())
    }
}

async fn serve_closing(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    for _ in 0..3 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            head.extend_from_slice(&buffer[..length]);
        }
        let length = name.len();
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
        stream.write_all(text.as_bytes()).await?;
    }
    Ok(())
}

async fn serve_bytes(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    Ok(())
}

type ResponseBody = Either<Full<Bytes>, Zeros>;

fn text(text: impl Into<Bytes>) -> ResponseBody {
    Either::Left(Full::new(text.into()))
}

/// `/` says who answers; `/slow/MS` later; `/headers` shows the request; `/upload` counts its
/// body; `/trailers` says what came after it; `/download/N` sends so many bytes; `/upgrade` switches to an echo; `/status/N`.
async fn respond(
    mut request: Request<Incoming>,
    name: String,
) -> Result<Response<ResponseBody>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    let verb = parts.next().unwrap_or_default();
    let number: u64 = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut response = Response::new(text(name));
    match verb {
        "slow" => tokio::time::sleep(Duration::from_millis(number)).await,
        "headers" => {
            let mut lines = vec![format!("{} {}", request.method(), request.uri())];
            for (name, value) in request.headers() {
                lines.push(format!("{name}: {}", value.to_str().unwrap()));
            }
            *response.body_mut() = text(lines.join("\n") + "\n");
        }
        "upload" => {
            let mut count = 0;
            while let Some(Ok(frame)) = request.body_mut().frame().await {
                count += frame.data_ref().map_or(0, Bytes::len);
            }
            *response.body_mut() = text(count.to_string());
        }
        "trailers" => {
            let body = request.body_mut().collect().await.unwrap();
            let checked = body.trailers().and_then(|fields| fields.get("x-checked"));
            *response.body_mut() = text(checked.unwrap().to_str().unwrap().to_owned());
        }
        "download" => *response.body_mut() = Either::Right(Zeros(number)),
        "status" => {
            *response.status_mut() = StatusCode::from_u16(number.try_into().unwrap()).unwrap();
        }
        "upgrade" => {
            tokio::spawn(async move {
                let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = io.read(&mut buffer).await {
                    io.write_all(&buffer[..n]).await.unwrap();
                }
            });
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
            *response.body_mut() = text("");
        }
        _ => {}
    }
    Ok(response)
}

/// A body of so many zero bytes, made as it is asked for.
pub(crate) struct Zeros(pub(crate) u64);

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static CHUNK: [u8; 65536] = [0; 65536];
        let length = usize::try_from(self.0).unwrap().min(CHUNK.len());
        self.0 -= length as u64;
        let frame = (length > 0).then(|| Ok(Frame::data(Bytes::from_static(&CHUNK[..length]))));
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}
