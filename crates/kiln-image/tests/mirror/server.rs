//! A small HTTP server whose files, failures and moods a test decides.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What else happens to requests for a path.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// The answer has this status and no file.
    Status(u16),
    /// The same, with the demand to come back after so many seconds.
    Wait(u16, u64),
    /// The connection is cut after so many bytes of the body.
    Cut(usize),
}

#[derive(Default)]
struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    /// How many of the next requests for a path meet a mood.
    moods: BTreeMap<String, (Mood, usize)>,
    /// Paths as they were asked for, with ` bytes=N-` where a range was.
    log: Vec<String>,
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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let served = Arc::clone(&served);
                // A client that goes away is no failure of the server.
                std::thread::spawn(move || stream.and_then(|stream| answer(&stream, &served)));
            }
        });
        Self { shared, address, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn put(&self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.with(|shared| shared.files.insert(path.into(), bytes.into()));
    }

    pub(crate) fn remove(&self, prefix: &str) {
        self.with(|shared| shared.files.retain(|path, _| !path.starts_with(prefix)));
    }

    /// What is served below a path.
    pub(crate) fn served(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        self.with(|shared| {
            let below = shared.files.iter().filter(|(path, _)| path.starts_with(prefix));
            below.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
        })
    }

    /// Lets the next `times` requests for a path meet a mood.
    pub(crate) fn set_mood(&self, path: &str, mood: Mood, times: usize) {
        self.with(|shared| shared.moods.insert(path.to_owned(), (mood, times)));
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.with(|shared| shared.log.clone())
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

/// Answers the requests of one connection, until the client or a mood ends it.
fn answer(stream: &TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut from = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            let range = header.to_ascii_lowercase();
            if let Some(start) = range.strip_prefix("range: bytes=") {
                from = start.trim().trim_end_matches('-').parse().unwrap_or(0);
            }
        }
        let (file, mood) = {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let range = if from > 0 { format!(" bytes={from}-") } else { String::new() };
            shared.log.push(format!("{path}{range}"));
            let mood = shared.moods.get_mut(&path).filter(|(_, times)| *times > 0);
            let mood = mood.map(|(mood, times)| {
                *times -= 1;
                mood.clone()
            });
            (shared.files.get(&path).cloned(), mood)
        };
        let status = match (&mood, &file) {
            (Some(Mood::Status(status) | Mood::Wait(status, _)), _) => *status,
            (_, None) => 404,
            (_, Some(file)) if from > file.len() => 416,
            _ if from > 0 => 206,
            _ => 200,
        };
        let body = file.filter(|_| status < 300).unwrap_or_default();
        let body = body.get(from..).unwrap_or_default();
        let wait = match &mood {
            Some(Mood::Wait(_, seconds)) => format!("Retry-After: {seconds}\r\n"),
            _ => String::new(),
        };
        let length = body.len();
        write!(writer, "HTTP/1.1 {status} x\r\n{wait}Content-Length: {length}\r\n\r\n")?;
        if let Some(Mood::Cut(after)) = mood {
            writer.write_all(&body[..after.min(body.len())])?;
            return Ok(());
        }
        writer.write_all(body)?;
    }
}
