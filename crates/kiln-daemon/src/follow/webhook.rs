//! Listening for webhooks: a request that is signed with the shared secret, as GitHub, Gitea and Forgejo
//! sign theirs, has the repository looked at now. It can do nothing else, so one that is sent again
//! does no harm.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kiln_model::digest::Digest;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::registry::Webhook;
use super::worker::{Message, say};

/// The header that carries the signature.
const SIGNATURE: &str = "x-hub-signature-256";
/// The longest body in bytes.
const MAX_BODY: usize = 4 << 20;
/// How many connections are held at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long a whole connection may take.
const CONNECTION_BOUND: Duration = Duration::from_secs(20);
/// The pause before a port that is taken is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// The shortest secret in bytes.
pub const SHORTEST_SECRET: usize = 16;

/// Whether a webhook may listen there: on this machine's loopback only. What is to be reached from
/// outside stands behind something that speaks TLS.
pub fn may_listen(address: SocketAddr) -> bool {
    address.ip().is_loopback() && address.port() != 0
}

/// Listens until the runtime ends.
pub(super) async fn listen(hook: Webhook, told: Sender<Message>) {
    let hook = Arc::new(hook);
    let mut complained = false;
    let listener = loop {
        match TcpListener::bind(hook.listen).await {
            Ok(listener) => break listener,
            Err(error) if !complained => {
                complained = true;
                say(&format!("webhooks cannot be listened for on {}: {error}", hook.listen));
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    };
    say(&format!("listens for webhooks on {}", hook.listen));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (hook, told) = (hook.clone(), told.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&hook, &told, request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(CONNECTION_BOUND)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // How a connection ends is its client's business.
            let _ = tokio::time::timeout(CONNECTION_BOUND, connection).await;
            drop(place);
        });
    }
}

async fn answer(
    hook: &Webhook,
    told: &Sender<Message>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = judge(hook, request).await;
    if status == StatusCode::ACCEPTED {
        // The worker goes with the process.
        let _ = told.send(Message::Hook);
    }
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    Ok(response)
}

async fn judge(hook: &Webhook, request: Request<Incoming>) -> (StatusCode, &'static str) {
    if request.method() != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent with POST");
    }
    let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok());
    let Some(signature) = signature.map(str::to_owned) else {
        return (StatusCode::UNAUTHORIZED, "there is no X-Hub-Signature-256");
    };
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 4 MiB, or was cut off");
    };
    let secret = match read_secret(&hook.secret_file) {
        Ok(secret) => secret,
        Err(error) => {
            say(&format!("a webhook cannot be checked: {error}"));
            return (StatusCode::INTERNAL_SERVER_ERROR, "the signature cannot be checked");
        }
    };
    if is_signed(&secret, &body.to_bytes(), &signature) {
        (StatusCode::ACCEPTED, "the repository is looked at")
    } else {
        (StatusCode::UNAUTHORIZED, "the signature is not right")
    }
}

/// The shared secret: the file's content without the line break at its end.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let end = text.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    if end < SHORTEST_SECRET {
        let path = path.display();
        return Err(format!("the secret in {path} is shorter than {SHORTEST_SECRET} bytes"));
    }
    Ok(text[..end].to_owned())
}

/// Whether `signature` is `sha256=` and the HMAC-SHA-256 of the body in hexadecimal digits.
fn is_signed(secret: &[u8], body: &[u8], signature: &str) -> bool {
    let Some(given) = signature.strip_prefix("sha256=") else { return false };
    let mut wanted = String::with_capacity(64);
    for byte in hmac(secret, body) {
        // Writing to a string cannot fail.
        let _ = write!(wanted, "{byte:02x}");
    }
    // Every digit counts, whatever came before: how long it takes gives nothing away.
    let given = given.as_bytes();
    let differences =
        wanted.bytes().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b.to_ascii_lowercase()));
    given.len() == wanted.len() && differences == 0
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let short = if key.len() > 64 { Digest::of(key).as_bytes().to_vec() } else { key.to_vec() };
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(&short).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Digest::of(&[&pad(0x36)[..], text].concat());
    *Digest::of(&[&pad(0x5c)[..], inner.as_bytes()].concat()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        let hex = |bytes: [u8; 32]| Digest::from_bytes(bytes).hex();
        assert_eq!(
            hex(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn a_signature_is_right_or_not() {
        // The example of GitHub's documentation.
        let (secret, body) = (b"It's a Secret to Everybody", b"Hello, World!");
        let right = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(is_signed(secret, body, &format!("sha256={right}")));
        assert!(is_signed(secret, body, &format!("sha256={}", right.to_uppercase())));
        for wrong in [
            right.to_owned(),
            format!("sha1={right}"),
            format!("sha256={}", right.replace('7', "8")),
            format!("sha256={}", &right[..62]),
            format!("sha256={right}00"),
            "sha256=".to_owned(),
        ] {
            assert!(!is_signed(secret, body, &wrong), "{wrong}");
        }
        assert!(!is_signed(b"another secret", body, &format!("sha256={right}")));
    }

    #[test]
    fn a_secret_is_read_without_its_line_break_and_not_too_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "0123456789abcdef\n").unwrap();
        assert_eq!(read_secret(&path).unwrap(), b"0123456789abcdef");
        fs::write(&path, "0123456789abcde\n").unwrap();
        assert!(read_secret(&path).unwrap_err().contains("shorter"));
    }

    #[test]
    fn only_loopback_is_listened_on() {
        assert!(may_listen("127.0.0.1:9000".parse().unwrap()));
        assert!(may_listen("[::1]:9000".parse().unwrap()));
        for address in ["0.0.0.0:9000", "192.0.2.1:9000", "127.0.0.1:0"] {
            assert!(!may_listen(address.parse().unwrap()), "{address}");
        }
    }
}
