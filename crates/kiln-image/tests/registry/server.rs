//! A registry in memory, whose faults a test decides.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_model::digest::Digest;

/// What happens to a request instead of its answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status, with more headers.
    Status(u16, &'static str),
    /// The connection is cut after so many bytes of the body have gone out.
    CutAnswer(usize),
    /// The connection is cut after so many bytes of the body have come in; they are kept.
    CutRequest(usize),
    /// One byte of the body is changed on its way out.
    Flip,
}

#[derive(Default)]
struct Shared {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By repository and version.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// By the beginning of `METHOD PATH`.
    faults: Vec<(String, VecDeque<Fault>)>,
    log: Vec<String>,
    /// Whether artifacts are listed by what they are about.
    referrers: bool,
    /// The token that requests must bring, and the login for it.
    login: Option<(String, String)>,
}

/// Serves on a port of the loopback address until it is dropped.
pub(crate) struct Server {
    shared: Arc<Mutex<Shared>>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared { referrers: true, ..Shared::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let served = Arc::clone(&served);
                // A client that goes away is no failure of the server.
                std::thread::spawn(move || stream.and_then(|s| answer(&s, address, &served)));
            }
        });
        Self { shared, address, stop, thread: Some(thread) }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Lets the next requests that begin so meet these faults, one each.
    pub(crate) fn fail(&self, start: &str, faults: impl IntoIterator<Item = Fault>) {
        self.with(|shared| shared.faults.push((start.to_owned(), faults.into_iter().collect())));
    }

    pub(crate) fn without_referrers(&self) {
        self.with(|shared| shared.referrers = false);
    }

    /// Asks for a token, which only this login gets: `user:password` in base 64.
    pub(crate) fn with_login(&self, basic: &str) {
        let token = format!("Bearer {}", Digest::of(basic.as_bytes()).hex());
        self.with(|shared| shared.login = Some((token, format!("Basic {basic}"))));
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.with(|shared| std::mem::take(&mut shared.log))
    }

    pub(crate) fn put_manifest(&self, repository: &str, version: &str, kind: &str, bytes: &[u8]) {
        let key = (repository.to_owned(), version.to_owned());
        self.with(|shared| shared.manifests.insert(key, (kind.to_owned(), bytes.to_vec())));
    }

    pub(crate) fn manifest(&self, repository: &str, version: &str) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), version.to_owned());
        self.with(|shared| shared.manifests.get(&key).map(|(_, bytes)| bytes.clone()))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn status(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

/// Answers the requests of one connection, until the client or a fault ends it.
fn answer(stream: &TcpStream, address: SocketAddr, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let Some(request) = read_request(&mut reader)? else { return Ok(()) };
        let line = format!("{} {}", request.method, request.path);
        let fault = {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let range = request.headers.get("range").map(|r| format!(" {r}")).unwrap_or_default();
            let query = if request.query.is_empty() { "" } else { "?" };
            shared.log.push(format!("{line}{query}{}{range}", request.query));
            let mut faults = shared.faults.iter_mut().filter(|(start, _)| line.starts_with(start));
            faults.find_map(|(_, faults)| faults.pop_front())
        };
        let length =
            request.headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        let taken = match fault {
            Some(Fault::CutRequest(bytes)) => bytes.min(length),
            _ => length,
        };
        let mut body = vec![0; taken];
        reader.read_exact(&mut body)?;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = match fault {
            Some(Fault::Status(code, header)) => {
                let (name, value) = header.split_once(": ").unwrap_or(("x", "y"));
                let name: &'static str = if name == "Retry-After" { "Retry-After" } else { "X" };
                Answer { headers: vec![(name, value.to_owned())], ..status(code) }
            }
            Some(Fault::CutRequest(_)) => {
                if let Some(upload) = shared.uploads.get_mut(&request.path) {
                    upload.extend(body);
                }
                return Ok(());
            }
            _ => handle(&mut shared, address, &request, body),
        };
        drop(shared);
        if let (Some(Fault::Flip), Some(byte)) = (&fault, answer.body.first_mut()) {
            *byte ^= 1;
        }
        write!(writer, "HTTP/1.1 {} x\r\n", answer.status)?;
        for (name, value) in &answer.headers {
            write!(writer, "{name}: {value}\r\n")?;
        }
        if request.method != "HEAD" {
            write!(writer, "Content-Length: {}\r\n", answer.body.len())?;
        }
        write!(writer, "\r\n")?;
        if let Some(Fault::CutAnswer(after)) = fault {
            writer.write_all(&answer.body[..after.min(answer.body.len())])?;
            return Ok(());
        }
        if request.method != "HEAD" {
            writer.write_all(&answer.body)?;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers }))
}

fn handle(shared: &mut Shared, address: SocketAddr, request: &Request, body: Vec<u8>) -> Answer {
    if let Some((token, basic)) = &shared.login {
        let brought = request.headers.get("authorization");
        if request.path == "/token" {
            let known = brought == Some(basic);
            let token = token.trim_start_matches("Bearer ");
            let body = format!("{{\"token\":\"{token}\"}}").into_bytes();
            return if known { Answer { body, ..status(200) } } else { status(401) };
        }
        if brought != Some(token) {
            let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"test\"");
            return Answer { headers: vec![("WWW-Authenticate", challenge)], ..status(401) };
        }
    }
    let Some(rest) = request.path.strip_prefix("/v2/") else { return status(404) };
    if let Some((repository, version)) = rest.split_once("/manifests/") {
        return manifests(shared, request, repository, version, body);
    }
    if let Some((repository, digest)) = rest.split_once("/referrers/") {
        return referrers(shared, repository, digest);
    }
    if rest.contains("/blobs/uploads/") {
        return uploads(shared, request, body);
    }
    let Some((_, digest)) = rest.split_once("/blobs/") else { return status(404) };
    let Some(blob) = shared.blobs.get(digest) else { return status(404) };
    let range = request.headers.get("range").and_then(|r| r.strip_prefix("bytes="));
    let from = range.and_then(|r| r.trim_end_matches('-').parse::<usize>().ok());
    match from {
        Some(from) => Answer { body: blob[from.min(blob.len())..].to_vec(), ..status(206) },
        None => Answer { body: blob.clone(), ..status(200) },
    }
}

fn manifests(
    shared: &mut Shared,
    request: &Request,
    repository: &str,
    version: &str,
    body: Vec<u8>,
) -> Answer {
    if request.method == "PUT" {
        let kind = request.headers.get("content-type").cloned().unwrap_or_default();
        let digest = Digest::of(&body);
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let mut headers = Vec::new();
        if let (true, Some(subject)) = (shared.referrers, document["subject"]["digest"].as_str()) {
            headers.push(("OCI-Subject", subject.to_owned()));
        }
        for version in [version.to_owned(), digest.to_string()] {
            let key = (repository.to_owned(), version);
            shared.manifests.insert(key, (kind.clone(), body.clone()));
        }
        return Answer { headers, ..status(201) };
    }
    match shared.manifests.get(&(repository.to_owned(), version.to_owned())) {
        Some((kind, body)) => {
            let headers = vec![("Content-Type", kind.clone())];
            Answer { headers, body: body.clone(), ..status(200) }
        }
        None => status(404),
    }
}

fn referrers(shared: &Shared, repository: &str, digest: &str) -> Answer {
    if !shared.referrers {
        return status(404);
    }
    let mut found = Vec::new();
    for ((in_repository, version), (kind, bytes)) in &shared.manifests {
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let about = document["subject"]["digest"].as_str() == Some(digest);
        if in_repository == repository && version.starts_with("sha256:") && about {
            found.push(serde_json::json!({
                "mediaType": kind, "digest": version, "size": bytes.len(),
            }));
        }
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": found });
    Answer { body: serde_json::to_vec(&index).unwrap(), ..status(200) }
}

fn uploads(shared: &mut Shared, request: &Request, body: Vec<u8>) -> Answer {
    let field = |name: &str| {
        let fields = request.query.split('&').filter_map(|field| field.split_once('='));
        fields.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
    };
    if request.method == "POST" {
        if field("mount").is_some_and(|digest| shared.blobs.contains_key(&digest)) {
            return status(201);
        }
        let location = format!("{}session-{}", request.path, shared.log.len());
        shared.uploads.insert(location.clone(), Vec::new());
        return Answer { headers: vec![("Location", location)], ..status(202) };
    }
    let Some(upload) = shared.uploads.get_mut(&request.path) else { return status(404) };
    if request.method == "PATCH" {
        let from =
            request.headers.get("content-range").and_then(|r| r.split('-').next()?.parse().ok());
        if from != Some(upload.len()) {
            return status(416);
        }
    }
    upload.extend(body);
    if request.method == "PUT" {
        let content = shared.uploads.remove(&request.path).unwrap_or_default();
        let digest = Digest::of(&content).to_string();
        if field("digest").as_ref() != Some(&digest) {
            let error = r#"{"errors":[{"code":"DIGEST_INVALID","message":"it sums to another"}]}"#;
            return Answer { body: error.into(), ..status(400) };
        }
        shared.blobs.insert(digest, content);
        return status(201);
    }
    let range = format!("0-{}", upload.len().saturating_sub(1));
    let code = if request.method == "GET" { 204 } else { 202 };
    Answer { headers: vec![("Location", request.path.clone()), ("Range", range)], ..status(code) }
}
