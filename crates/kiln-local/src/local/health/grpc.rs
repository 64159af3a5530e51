//! The gRPC health check, spoken without a program inside the instance.
//!
//! One unary call of `grpc.health.v1.Health/Check` over HTTP/2 with prior knowledge, as the GRPC
//! Health Checking Protocol says (`grpc/grpc`, `doc/health-checking.md` and
//! `src/proto/grpc/health/v1/health.proto`); framing and trailers after `PROTOCOL-HTTP2.md` there.
//! Its two messages have one field each and are written and read by hand:
//!
//! ```text
//! message HealthCheckRequest  { string service = 1; }
//! message HealthCheckResponse { ServingStatus status = 1; }   // 1 is SERVING
//! ```

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::ask::{Place, connect};

/// The longest answer that is read, in bytes.
const LONGEST: usize = 4096;

/// Ends the task that drives a connection when the question is over, however that ends.
struct Driver(tokio::task::AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether the instance says that `service` is serving; the server as a whole where it is empty.
pub(super) async fn check(place: &Place<'_>, port: u16, service: &str) -> Result<(), String> {
    let of = if service.is_empty() { String::new() } else { format!(" of {service}") };
    let fail = |cause: String| format!("gRPC health{of} on port {port}: {cause}");
    ask(place, port, service).await.map_err(fail)
}

async fn ask(place: &Place<'_>, port: u16, service: &str) -> Result<(), String> {
    let stream = connect(place, port).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| told(&e))?;
    let _driver = Driver(tokio::spawn(connection).abort_handle());
    let request =
        Request::post(format!("http://{}:{port}/grpc.health.v1.Health/Check", place.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kiln-health")
            .body(Full::new(message(service)))
            .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| told(&e))?;
    let (body, trailers) = read(response).await?;
    grpc_status(&trailers)?;
    match serving_status(&body) {
        Some(1) => Ok(()),
        Some(0) => Err("the status is UNKNOWN".to_owned()),
        Some(2) => Err("the status is NOT_SERVING".to_owned()),
        Some(3) => Err("the status is SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("the status is {other}")),
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

/// The request in its frame: not compressed, its length, one field.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.extend([0x0a]);
        varint(service.len(), &mut field);
        field.extend(service.as_bytes());
    }
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    let mut framed = BytesMut::with_capacity(5 + field.len());
    framed.extend([0]);
    framed.extend(length.to_be_bytes());
    framed.extend(field);
    framed.freeze()
}

fn varint(mut value: usize, to: &mut BytesMut) {
    while value > 0x7f {
        to.extend([u8::try_from(value & 0x7f).unwrap_or(0) | 0x80]);
        value >>= 7;
    }
    to.extend([u8::try_from(value).unwrap_or(0)]);
}

/// The body of an answer, and the headers that say how the call ended: its trailers, or the only
/// headers where there is no body.
async fn read(response: Response<Incoming>) -> Result<(Vec<u8>, HeaderMap), String> {
    if !response.status().is_success() {
        return Err(format!("HTTP status {}", response.status().as_u16()));
    }
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut trailers) = (Vec::new(), head.headers);
    while let Some(frame) = incoming.frame().await {
        match frame.map_err(|e| told(&e))?.into_data() {
            Ok(data) if body.len() + data.len() > LONGEST => {
                return Err(format!("the answer is longer than {LONGEST} bytes"));
            }
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((body, trailers))
}

fn grpc_status(trailers: &HeaderMap) -> Result<(), String> {
    let value = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok());
    match (value("grpc-status"), value("grpc-message")) {
        (Some("0"), _) => Ok(()),
        (Some("5"), _) => Err("it does not know this service (NOT_FOUND)".to_owned()),
        (Some("12"), _) => Err("it has no grpc.health.v1.Health (UNIMPLEMENTED)".to_owned()),
        (Some(code), Some(message)) if !message.is_empty() => {
            Err(format!("gRPC status {code}: {message}"))
        }
        (Some(code), _) => Err(format!("gRPC status {code}")),
        (None, _) => Err("the answer is not gRPC".to_owned()),
    }
}

/// Field 1 of the framed message, a varint; 0 where it is left out. Other fields are passed over
/// where they are varints, and not understood else.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head.get(1..5)?.try_into().ok()?);
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let value = (key % 8 == 0).then(|| take_varint(&mut rest)).flatten()?;
        if key >> 3 == 1 {
            status = value;
        }
    }
    Some(status)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// An error of hyper with its cause, which says what was wrong.
fn told(error: &hyper::Error) -> String {
    crate::local::create::chain(error)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;
    use std::path::Path;

    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each call with these bytes, trailers and status; what it was asked.
    async fn ask_server(
        body: &'static [u8],
        trailers: &'static [(&'static str, &'static str)],
        service: &str,
    ) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (tell, told) = tokio::sync::oneshot::channel();
            let tell = std::sync::Mutex::new(Some(tell));
            let answer = service_fn(|request: Request<Incoming>| {
                let tell = tell.lock().unwrap().take();
                async move {
                    let path = request.uri().path().to_owned();
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    tell.unwrap().send(format!("{path} {asked:?}")).unwrap();
                    let mut map = HeaderMap::new();
                    for (name, value) in trailers {
                        map.insert(*name, value.parse().unwrap());
                    }
                    let body = Full::new(Bytes::from_static(body));
                    let body = body.with_trailers(async { Some(Ok::<_, Infallible>(map)) });
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // The client leaves as soon as it has heard enough.
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
            told.await.unwrap_or_default()
        });
        let place =
            Place { namespace: Path::new("/proc/self/ns/net"), address: Ipv4Addr::LOCALHOST };
        let result = check(&place, port, service).await;
        (result, served.await.unwrap())
    }

    const OK: &[(&str, &str)] = &[("grpc-status", "0")];

    #[tokio::test]
    async fn serving_is_well_and_nothing_else_is() {
        let (result, asked) = ask_server(b"\0\0\0\0\x02\x08\x01", OK, "").await;
        assert_eq!(result, Ok(()));
        assert_eq!(asked, r#"/grpc.health.v1.Health/Check b"\0\0\0\0\0""#);
        let (result, asked) = ask_server(b"\0\0\0\0\x02\x08\x02", OK, "shop.Orders").await;
        let said = result.unwrap_err();
        assert!(said.contains("of shop.Orders") && said.ends_with("is NOT_SERVING"), "{said}");
        assert!(asked.ends_with(r#"b"\0\0\0\0\r\n\x0bshop.Orders""#), "{asked}");
        for (body, trailers, expected) in [
            (&b"\0\0\0\0\0"[..], OK, "the status is UNKNOWN"),
            (b"\0\0\0\0\x02\x08\x03", OK, "the status is SERVICE_UNKNOWN"),
            (b"\x01\0\0\0\x02\x08\x01", OK, "no HealthCheckResponse"),
            (b"\0\0\0\0\x09\x08\x01", OK, "no HealthCheckResponse"),
            (b"", &[("grpc-status", "12")], "UNIMPLEMENTED"),
            (b"", &[("grpc-status", "5")], "NOT_FOUND"),
            (b"", &[("grpc-status", "14"), ("grpc-message", "later")], "status 14: later"),
            (b"hello", &[], "not gRPC"),
        ] {
            let said = ask_server(body, trailers, "").await.0.unwrap_err();
            assert!(said.contains(expected), "{said} instead of {expected}");
        }
    }

    #[tokio::test]
    async fn what_speaks_something_else_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let place =
            Place { namespace: Path::new("/proc/self/ns/net"), address: Ipv4Addr::LOCALHOST };
        let said = check(&place, port, "").await.unwrap_err();
        assert!(said.starts_with(&format!("gRPC health on port {port}: ")), "{said}");
    }

    #[test]
    fn long_names_have_lengths_of_two_bytes() {
        let framed = message(&"x".repeat(300));
        assert_eq!(framed[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(framed.len(), 5 + 303);
    }
}
