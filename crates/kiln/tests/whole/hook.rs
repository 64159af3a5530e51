//! A webhook that keeps what it is sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// See the module. Its thread ends when it is dropped.
pub struct Hook {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Value>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (received, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, ended) = (received.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(document) = stream.ok().and_then(take) {
                    kept.lock().unwrap().push(document);
                }
            }
        });
        Self { address, received, over, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/kiln", self.address)
    }

    /// What has come so far.
    pub fn received(&self) -> Vec<Value> {
        self.received.lock().unwrap().clone()
    }

    /// Whether an alarm for this has come.
    pub fn has(&self, cause: &str) -> bool {
        self.received().iter().any(|alarm| alarm["cause"] == cause)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes it from its wait.
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The JSON document of one request, which is answered.
fn take(mut stream: TcpStream) -> Option<Value> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if let Some(document) = body.and_then(|body| serde_json::from_str(body).ok()) {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
            return Some(document);
        }
    }
}
