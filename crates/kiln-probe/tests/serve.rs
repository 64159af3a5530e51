//! The probe as tests of other crates meet it: a program that serves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running probe, killed when dropped.
struct Probe {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Probe {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kiln-probe"))
            .args(["serve", "--port", "0"])
            .args(arguments)
            .env("KILN_PROBE_TEST", "seen")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let port = line.strip_prefix("started on port ").unwrap().split(' ').next().unwrap();
        Self { port: port.parse().unwrap(), child, output }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// The answer to `GET target` on a connection of its own, head and body.
    fn ask(&self, target: &str) -> (String, String) {
        let mut stream = self.connect();
        write!(stream, "GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn body(&self, target: &str) -> String {
        self.ask(target).1
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// The rest of what it prints, and its exit status.
    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // One that has ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads one answer of a connection that stays open.
fn read_answer(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "closed within {head:?}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn it_tells_what_it_is_and_sees() {
    let probe = Probe::start(&["--body", "release v1"]);
    assert_eq!(probe.body("/"), "release v1");
    assert_eq!(probe.body("/healthz"), "ok");
    assert!(probe.body("/env").contains("KILN_PROBE_TEST=seen\n"));
    assert!(probe.body("/status").contains("\nNoNewPrivs:"));
    assert!(probe.body("/mounts").contains(" /proc "));
    assert_eq!(
        probe.body("/id"),
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim()
    );
    assert!(probe.ask("/nothing").0.starts_with("HTTP/1.1 404 "));
    assert!(probe.ask("/write").0.starts_with("HTTP/1.1 400 "));
}

#[test]
fn it_writes_only_where_it_may() {
    let probe = Probe::start(&[]);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a file");
    let target = format!("/write?path={}&bytes=5", file.display().to_string().replace(' ', "%20"));
    assert_eq!(probe.body(&target), "ok");
    assert_eq!(std::fs::read(file).unwrap(), [0; 5]);
    assert_eq!(probe.body("/write?path=/proc"), "EISDIR");
    assert_eq!(probe.body("/write?path=/no/such"), "ENOENT");
}

#[test]
fn it_reaches_others() {
    let (client, server) = (Probe::start(&[]), Probe::start(&["--body", "far"]));
    let port = server.port;
    assert_eq!(client.body(&format!("/connect?addr=127.0.0.1:{port}")), "open");
    assert_eq!(client.body(&format!("/get?url=http://localhost:{port}/")), "far");
    assert_eq!(client.body("/resolve?name=10.1.2.3"), "10.1.2.3\n");
    drop(server);
    assert_eq!(client.body(&format!("/connect?addr=127.0.0.1:{port}")), "refused");
    assert!(client.ask(&format!("/get?url=http://127.0.0.1:{port}/")).0.contains(" 502 "));
}

#[test]
fn it_tries_system_calls_in_children() {
    let probe = Probe::start(&[]);
    assert_eq!(probe.body("/syscall?name=getpid"), "ok");
    assert_eq!(probe.body("/syscall?name=reboot"), refusal());
    assert!(probe.ask("/syscall?name=none").0.starts_with("HTTP/1.1 400 "));
    assert_eq!(probe.body("/fork?n=3"), "3 of 3");
    assert_eq!(probe.body("/eat?mb=2"), "ok");
    assert_eq!(probe.body("/spin?ms=1"), "ok");
}

/// What `reboot(2)` with wrong numbers answers here: root's numbers are looked at, others' never.
fn refusal() -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let can_boot = u64::from_str_radix(capabilities, 16).unwrap() >> 22 & 1 == 1;
    if can_boot { "EINVAL" } else { "EPERM" }
}

#[test]
fn health_and_delays_are_as_asked() {
    let probe = Probe::start(&["--unhealthy", "--slow", "80"]);
    let start = Instant::now();
    let (head, body) = probe.ask("/healthz");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "unhealthy");
    assert!(start.elapsed() >= Duration::from_millis(80));
}

#[test]
fn a_stop_answers_what_is_under_way_and_what_is_coming() {
    let probe = Probe::start(&["--slow", "400"]);
    let mut idle = BufReader::new(probe.connect());
    let mut busy = BufReader::new(probe.connect());
    busy.get_mut().write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    probe.terminate();
    std::thread::sleep(Duration::from_millis(50));
    idle.get_mut().write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    for connection in [&mut busy, &mut idle] {
        let (head, body) = read_answer(connection);
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert_eq!(body, "ok");
        assert_eq!(connection.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(probe.end(), ("stopped with 0 connections open\n".into(), Some(0)));
}

#[test]
fn connections_are_kept_and_idle_ones_do_not_hold_up_the_stop() {
    let probe = Probe::start(&[]);
    let mut kept = BufReader::new(probe.connect());
    for _ in 0..3 {
        kept.get_mut().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(read_answer(&mut kept).0.contains("\r\nConnection: keep-alive\r\n"));
    }
    let start = Instant::now();
    probe.terminate();
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(probe.end().1, Some(0));
}

#[test]
fn it_exits_as_told() {
    let probe = Probe::start(&[]);
    let mut stream = probe.connect();
    stream.write_all(b"GET /exit?code=7 HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(probe.end(), (String::new(), Some(7)));
}

#[test]
fn health_can_be_turned_and_lines_come_late() {
    let mut probe = Probe::start(&["--say", "warm", "--say-after", "50", "--die-after", "3000"]);
    let mut line = String::new();
    probe.output.read_line(&mut line).unwrap();
    assert_eq!(line, "warm\n");
    for (what, path) in [("ready", "/healthz"), ("live", "/livez")] {
        assert_eq!(probe.body(path), "ok");
        probe.body(&format!("/turn?what={what}&to=off"));
        assert_eq!(probe.body(path), "turned off");
        probe.body(&format!("/turn?what={what}&to=on"));
        assert_eq!(probe.body(path), "ok");
    }
    let (rest, status) = probe.end();
    assert_eq!((rest.as_str(), status), ("cannot go on\n", Some(3)));
}
