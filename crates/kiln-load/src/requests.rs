//! Requests over HTTP/1.1 and HTTP/2.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::Kind;
use crate::clients::{Client, Error, Outcome};

/// The host that is named.
pub(crate) const NAME: &str = "shop";

/// What a POST carries.
const BODY: &[u8] = &[b'x'; 1024];

/// One that asks, with the connection that it has.
pub(crate) struct Asker<'a> {
    client: &'a Client,
    open: Option<Sender>,
}

/// The sending half of a connection.
enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl<'a> Asker<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, open: None }
    }

    /// One request, which must be answered with 200 and a whole body.
    pub(crate) async fn ask(&mut self, post: bool) -> Outcome {
        let kind = self.client.group.kind;
        let mut request = request(kind, post)?;
        let (response, sender) = loop {
            let kept = self.open.take();
            let was_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(self.client).await?,
            };
            match sender.send(request).await {
                Ok(response) => break (response, sender),
                // Its end had been announced: nothing was sent.
                Err((_, Some(unsent))) if was_kept => {
                    self.client.reopened();
                    request = unsent;
                }
                Err((error, _)) => return Err(error),
            }
        };
        let status = response.status();
        let closes = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
        response.into_body().collect().await?;
        if kind != Kind::Http1Fresh && !closes {
            self.open = Some(sender);
        }
        if status == 200 { Ok(()) } else { Err(format!("answered {status}").into()) }
    }
}

fn request(kind: Kind, post: bool) -> Result<Request<Full<Bytes>>, Error> {
    let body = if post { Full::from(BODY) } else { Full::default() };
    let request = Request::builder().method(if post { "POST" } else { "GET" });
    let request = match kind {
        Kind::Http2 => request.uri(format!("http://{NAME}/")),
        _ => request.uri("/").header(HOST, NAME),
    };
    let closes = kind == Kind::Http1Fresh;
    let request = if closes { request.header(CONNECTION, "close") } else { request };
    Ok(request.body(body)?)
}

async fn connect(client: &Client) -> Result<Sender, Error> {
    let stream = TcpStream::connect(client.aim.http).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    if client.group.kind == Kind::Http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        // Its errors reach whoever waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        return Ok(Sender::Two(sender));
    }
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Sender::One(sender))
}

impl Sender {
    /// The head of the answer, or why there is none, with the request where nothing was sent.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (Error, Option<Request<Full<Bytes>>>)> {
        let ready = match self {
            Self::One(sender) => sender.ready().await,
            Self::Two(sender) => sender.ready().await,
        };
        if let Err(error) = ready {
            return Err((error.into(), Some(request)));
        }
        let sent = match self {
            Self::One(sender) => sender.try_send_request(request).await,
            Self::Two(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error().into(), unsent)
        })
    }
}
