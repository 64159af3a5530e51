//! A store that is reached by the protocol of S3: a small service that checks every signature, and can
//! fail, lie and be slow. Whatever it does, nothing counts as stored that is not there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_backup::archive::{Archive, Shipped};
use kiln_backup::catalogue::Catalogue;
use kiln_backup::segment::LogFile;
use kiln_backup::store::{Access, Content, S3, put_for_sure, read};
use kiln_backup::{Store, StoreError};
use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use kiln_model::spec::backup::Bucket;
use ring::hmac;

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// Objects of one page of a list.
const PAGE: usize = 3;

/// What the service does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    /// It fails.
    Fails,
    /// It says that it has stored, and has not.
    Drops,
    /// It stores one byte that is another.
    Alters,
    /// It ends in the middle of an object.
    CutsOff,
    /// It lists what was there before the last change.
    ListsOld,
    /// It answers after a while.
    Slow,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    before: BTreeMap<String, Vec<u8>>,
    harm: Harm,
    /// Requests whose signature was wrong.
    forged: usize,
}

/// The service, on this machine; it ends when it is dropped.
struct Service {
    port: u16,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (objects, before) = Default::default();
        let state = State { objects, before, harm: Harm::None, forged: 0 };
        let state = Arc::new(Mutex::new(state));
        let ends = Arc::new(AtomicBool::new(false));
        let (own, end) = (state.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let own = own.clone();
                // A client that goes away in the middle ends its thread.
                std::thread::spawn(move || stream.map(|stream| serve(&stream, &own)));
            }
        });
        Self { port, state, ends, thread: Some(thread) }
    }

    fn harm(&self, harm: Harm) {
        self.state.lock().unwrap().harm = harm;
    }

    fn store(&self, key: &str) -> S3 {
        let bucket = Bucket {
            bucket: "backups".to_owned(),
            prefix: "shop/orders".to_owned(),
            endpoint: format!("http://127.0.0.1:{}", self.port),
            region: "eu-central-1".to_owned(),
            access_key: "secret.id".parse().unwrap(),
            secret_key: "secret.key".parse().unwrap(),
        };
        S3::new(bucket, Access { id: ID.to_owned(), secret: key.to_owned() })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // It waits for a client.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

struct Asked {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let asked = request(&mut reader)?;
        let harm = state.lock().unwrap().harm;
        if harm == Harm::Slow {
            std::thread::sleep(Duration::from_millis(300));
        }
        let (status, body) = answer(&asked, &mut state.lock().unwrap());
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
        let mut stream = stream;
        stream.write_all(head.as_bytes()).ok()?;
        if harm == Harm::CutsOff && asked.method == "GET" && asked.query.is_empty() {
            stream.write_all(&body[..length / 2]).ok()?;
            return None;
        }
        stream.write_all(&body).ok()?;
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, query, headers, body })
}

/// Whether a request was signed by the key, and its body is what was signed.
fn is_signed(asked: &Asked) -> bool {
    let header = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
    let (date, body) = (header("x-amz-date"), header("x-amz-content-sha256"));
    if Digest::of(&asked.body).hex() != body {
        return false;
    }
    let names = ["host", "x-amz-content-sha256", "x-amz-date"];
    let lines: Vec<String> =
        names.iter().map(|name| format!("{name}:{}\n", header(name))).collect();
    let headers = lines.concat();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{}\n{body}",
        asked.method,
        asked.path,
        asked.query,
        names.join(";")
    );
    let day = date.get(..8).unwrap_or_default();
    let scope = format!("{day}/eu-central-1/s3/aws4_request");
    let hash = Digest::of(canonical.as_bytes()).hex();
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    let mut key = format!("AWS4{KEY}").into_bytes();
    for part in scope.split('/').chain([text.as_str()]) {
        let signing = hmac::Key::new(hmac::HMAC_SHA256, &key);
        key = hmac::sign(&signing, part.as_bytes()).as_ref().to_vec();
    }
    let digits: Vec<String> = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = digits.concat();
    let authorization = header("authorization");
    authorization.contains(&format!("Credential={ID}/{scope}"))
        && authorization.ends_with(&format!("Signature={signature}"))
}

fn answer(asked: &Asked, state: &mut State) -> (&'static str, Vec<u8>) {
    let refusal = |code: &str, message: &str| {
        format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>").into_bytes()
    };
    if !is_signed(asked) {
        state.forged += 1;
        return ("403 Forbidden", refusal("SignatureDoesNotMatch", "The signature is wrong"));
    }
    if state.harm == Harm::Fails {
        return ("503 Slow Down", refusal("SlowDown", "Reduce your request rate"));
    }
    let key = asked.path.strip_prefix("/backups").unwrap().trim_start_matches('/').to_owned();
    match asked.method.as_str() {
        "GET" if key.is_empty() => ("200 OK", list(asked, state)),
        "GET" => match state.objects.get(&key) {
            Some(bytes) => ("200 OK", bytes.clone()),
            None => ("404 Not Found", refusal("NoSuchKey", "The key does not exist")),
        },
        "PUT" => {
            state.before.clone_from(&state.objects);
            let mut bytes = asked.body.clone();
            match state.harm {
                Harm::Drops => return ("200 OK", Vec::new()),
                Harm::Alters => bytes[0] ^= 1,
                _ => {}
            }
            state.objects.insert(key, bytes);
            ("200 OK", Vec::new())
        }
        "DELETE" => {
            state.before.clone_from(&state.objects);
            state.objects.remove(&key);
            ("204 No Content", Vec::new())
        }
        _ => ("405 Method Not Allowed", Vec::new()),
    }
}

fn list(asked: &Asked, state: &State) -> Vec<u8> {
    let value = |name: &str| {
        let parts = asked.query.split('&').filter_map(|part| part.split_once('='));
        let found = parts.into_iter().find(|(found, _)| *found == name);
        found.map(|(_, value)| value.replace("%2F", "/"))
    };
    let prefix = value("prefix").unwrap();
    let objects = if state.harm == Harm::ListsOld { &state.before } else { &state.objects };
    let after = value("continuation-token");
    let found = objects.iter().filter(|(key, _)| key.starts_with(&prefix));
    let mut found: Vec<_> =
        found.filter(|(key, _)| after.as_ref().is_none_or(|a| *key > a)).collect();
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let mut text =
        format!("<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{more}</IsTruncated>");
    if let Some((last, _)) = found.last().filter(|_| more) {
        text = format!("{text}<NextContinuationToken>{last}</NextContinuationToken>");
    }
    for (key, bytes) in found {
        let size = bytes.len();
        text = format!(
            "{text}<Contents><Key>{key}</Key><LastModified>2026-05-01T13:30:00.000Z</LastModified>\
             <ETag>&quot;x&quot;</ETag><Size>{size}</Size></Contents>"
        );
    }
    text.push_str("</ListBucketResult>");
    text.into_bytes()
}

fn content(text: &str) -> (tempfile::TempDir, Content) {
    let scratch = tempfile::tempdir().unwrap();
    let content = Content::of_bytes(scratch.path(), text.as_bytes()).unwrap();
    (scratch, content)
}

#[test]
fn objects_are_put_read_listed_over_pages_and_removed() {
    let service = Service::start();
    let store = service.store(KEY);
    assert_eq!(store.list("").unwrap(), []);
    for n in 0..8 {
        let (_scratch, content) = content(&format!("content {n}"));
        put_for_sure(&store, &format!("line/wals/{n}"), &content).unwrap();
    }
    let names: Vec<String> = store.list("line/").unwrap().into_iter().map(|it| it.name).collect();
    let wanted: Vec<String> = (0..8).map(|n| format!("line/wals/{n}")).collect();
    assert_eq!(names, wanted);
    assert_eq!(read(&store, "line/wals/5", 100).unwrap(), b"content 5");
    store.remove("line/wals/5").unwrap();
    store.remove("line/wals/5").unwrap();
    assert!(store.get("line/wals/5").err().unwrap().is_absent());
    assert_eq!(store.list("line/wals/").unwrap().len(), 7);
    // A large one goes through in pieces.
    let large = "0123456789abcdef".repeat(1 << 18);
    let (_scratch, content) = content(&large);
    put_for_sure(&store, "large", &content).unwrap();
    assert_eq!(service.state.lock().unwrap().forged, 0);
    assert!(service.state.lock().unwrap().objects.contains_key("shop/orders/large"));
}

#[test]
fn a_wrong_key_is_told_as_the_service_tells_it_and_is_in_no_message() {
    let service = Service::start();
    let store = service.store("another key");
    let (_scratch, content) = content("x");
    let error = store.put("x", &content).unwrap_err();
    let told = format!("{error} {error:?} {store:?} {}", store.place());
    assert!(told.contains("SignatureDoesNotMatch") && told.contains("403"), "{told}");
    assert!(!told.contains("another key") && !told.contains(ID), "{told}");
    assert_eq!(service.state.lock().unwrap().forged, 1);
}

#[test]
fn nothing_counts_as_stored_that_is_not_there() {
    let service = Service::start();
    let store = service.store(KEY);
    let scratch = tempfile::tempdir().unwrap();
    let archive = Archive { store: &store, line: "1", seal: None, scratch: scratch.path() };
    let file: LogFile = "000000010000000000000001".parse().unwrap();
    for (harm, wanted) in [
        (Harm::Fails, "SlowDown"),
        (Harm::Drops, "it said that it has it, and has not"),
        (Harm::Alters, "is not what was put there"),
    ] {
        service.harm(harm);
        let told = archive.ship(&file, b"content", Timestamp(0)).unwrap_err().to_string();
        assert!(told.contains(wanted), "{harm:?}: {told}");
        service.harm(Harm::None);
        store.remove(&archive.name(&file)).unwrap();
    }
    service.harm(Harm::Slow);
    assert_eq!(archive.ship(&file, b"content", Timestamp(0)).unwrap(), Shipped::Stored);
    service.harm(Harm::CutsOff);
    let cut = archive.read(&file).unwrap_err();
    assert!(matches!(cut, StoreError::Io { .. }), "{cut:?}");
    service.harm(Harm::None);
    // A list that is old hides what is there; asking for it does not.
    let (_scratch, content) = content("y");
    store.put("other", &content).unwrap();
    service.harm(Harm::ListsOld);
    assert!(!store.list("").unwrap().iter().any(|object| object.name == "other"));
    assert_eq!(archive.ship(&file, b"content", Timestamp(0)).unwrap(), Shipped::Known);
    assert!(Catalogue::read(&store).unwrap().lines.is_empty());
}

#[test]
fn a_service_that_is_away_is_told_with_its_place() {
    let service = Service::start();
    let store = service.store(KEY);
    drop(service);
    let told = store.list("").unwrap_err().to_string();
    assert!(told.contains("s3://backups/shop/orders at http://127.0.0.1:"), "{told}");
}
