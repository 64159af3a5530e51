//! Webhooks: who knows the secret has the repository looked at, and nobody else can do anything.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{following, served, stack, wait};
use crate::site::{free_port, site_or_skip};

const SECRET: &str = "a secret that is long enough";

/// Sends a request; the status of the answer.
fn send(port: u16, head: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    write!(stream, "{head}Host: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
        .unwrap();
    // A server that refuses early closes early.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// `openssl dgst`, so that Kiln's own arithmetic is not what it is compared with.
fn sign(body: &[u8]) -> Option<String> {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", SECRET, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(body).ok()?;
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split_whitespace().next()?.to_owned())
}

#[test]
fn a_signed_webhook_triggers_at_once_and_nothing_else_is_accepted() {
    let name = "a_signed_webhook_triggers_at_once";
    let site = site_or_skip!("a_signed_webhook_triggers_at_once");
    let body = br#"{"ref":"refs/heads/main"}"#;
    let Some(signature) = sign(body) else {
        println!("skipped: {name}: needs openssl");
        return;
    };
    let secret = site.stack().parent().unwrap().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    // Over HTTP nothing is noticed before the next look, which is an hour away.
    let repository = super::repository::Repository::new(&site);
    repository.commit(&stack(&site, "v1"), "One");
    repository.bare_git(&["update-server-info"]);
    let server = Files::serve(repository.bare());
    site.write(&stack(&site, "by-hand"));
    let url = format!("http://127.0.0.1:{}/shop.git", server.port);
    let port = free_port();
    let hook = format!("127.0.0.1:{port}");
    site.must(&[
        "follow",
        &url,
        "--branch",
        "main",
        "--every",
        "1h",
        "--webhook",
        &hook,
        "--webhook-secret-file",
        secret.to_str().unwrap(),
    ]);
    wait("v1 is deployed", &site, || following(&site)["results"][0]["outcome"] == "deployed");
    served(&site, "v1");
    repository.commit(&stack(&site, "v2"), "Two");
    repository.bare_git(&["update-server-info"]);
    wait("it listens", &site, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let hook_head = |header: &str| format!("POST /hook HTTP/1.1\r\n{header}");
    let signed = format!("X-Hub-Signature-256: sha256={signature}\r\n");
    let wrong = signed.replace(&signature[..4], "0000");
    let old = format!("X-Hub-Signature: sha1={}\r\n", &signature[..40]);
    assert_eq!(send(port, &hook_head(""), body), 401);
    assert_eq!(send(port, &hook_head(&old), body), 401);
    assert_eq!(send(port, &hook_head(&wrong), body), 401);
    assert_eq!(send(port, &hook_head(&signed), b"{\"ref\":\"another body\"}"), 401);
    assert_eq!(send(port, &format!("GET / HTTP/1.1\r\n{signed}"), b""), 405);
    assert_eq!(send(port, &hook_head(&signed), &vec![b'x'; 5 << 20]), 413);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(site.get("/"), (200, "v1".to_owned()), "none of these had it looked at");
    assert_eq!(send(port, &hook_head(&signed), body), 202);
    served(&site, "v2");

    // A server that cannot be reached is said, and what runs is kept.
    drop(server);
    assert_eq!(send(port, &hook_head(&signed), body), 202);
    wait("it is said", &site, || {
        following(&site)["trouble"].as_str().is_some_and(|text| text.contains("cannot be read"))
    });
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
}

/// The files of a directory over HTTP, as a plain web server gives them.
struct Files {
    port: u16,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Files {
    fn serve(directory: std::path::PathBuf) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let directory = directory.clone();
                std::thread::spawn(move || answer(stream, &directory));
            }
        });
        Self { port, stop }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        // Wakes it, so that the port is closed.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(mut stream: TcpStream, directory: &std::path::Path) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split_whitespace().nth(1).unwrap_or("/").split('?').next().unwrap_or("/");
    let found = fs::read(directory.join(path.trim_start_matches("/shop.git/")));
    let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(&body);
}
