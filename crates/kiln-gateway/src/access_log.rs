//! One line of JSON per request, in `ROOT/logs/access/STACK.ENDPOINT.log`.
//!
//! Lines go through a bounded queue to a thread of their own, so that a slow disk delays no
//! request; what does not fit is counted and said in the log. A file that has reached its size
//! is renamed with a number behind it, and the oldest is removed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::SystemTime;

use kiln_model::quantity::Timestamp;
use serde::Serialize;

/// Lines that may wait to be written.
const QUEUE: usize = 16 * 1024;

/// The size from which a file is put aside, bytes.
const LARGEST: u64 = 16 << 20;

/// Files that are kept beside the one that is written.
const KEPT: u32 = 4;

/// What is noted of one request or connection.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entry {
    /// When it began.
    pub(crate) time: String,
    pub(crate) client: String,
    /// `HTTP/1.1`, `HTTP/2.0`, `TCP`.
    pub(crate) protocol: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) host: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// Bytes of the response's body that were handed to the client.
    pub(crate) bytes: u64,
    /// Until the end of the response.
    pub(crate) milliseconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) agent: String,
}

/// Where entries are sent; the thread begins with the first one.
#[derive(Debug)]
pub(crate) struct AccessLog {
    directory: PathBuf,
    lines: OnceLock<SyncSender<(String, Vec<u8>)>>,
    lost: AtomicU64,
}

impl AccessLog {
    pub(crate) fn new(root: &Path) -> Self {
        let directory = root.join("logs/access");
        Self { directory, lines: OnceLock::new(), lost: AtomicU64::new(0) }
    }

    /// Notes an entry of the endpoint `name`; never waits.
    pub(crate) fn note(&self, name: String, entry: &Entry) {
        let Ok(mut line) = serde_json::to_vec(entry) else { return };
        line.push(b'\n');
        let lost = self.lost.swap(0, Relaxed);
        if lost > 0 {
            line.extend_from_slice(format!("{{\"lost\":{lost}}}\n").as_bytes());
        }
        let lines = self.lines.get_or_init(|| start(self.directory.clone()));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            lines.try_send((name, line))
        {
            self.lost.fetch_add(lost + 1, Relaxed);
        }
    }
}

/// The present time as the log shows it.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).to_string()
}

fn start(directory: PathBuf) -> SyncSender<(String, Vec<u8>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let started = std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || write_all(&directory, &receiver));
    if let Err(error) = started {
        eprintln!("kiln gateway: requests are not logged: {error}");
    }
    sender
}

/// A file that is being written.
struct Open {
    file: io::BufWriter<File>,
    size: u64,
}

fn write_all(directory: &Path, lines: &Receiver<(String, Vec<u8>)>) {
    let mut files: HashMap<String, Open> = HashMap::new();
    let mut silent = false;
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some((name, line)) = next {
            if let Err(error) = write(directory, &mut files, &name, &line) {
                if !silent {
                    eprintln!("kiln gateway: the access log of {name} cannot be written: {error}");
                }
                silent = true;
                files.remove(&name);
            } else {
                silent = false;
            }
            next = lines.try_recv().ok();
        }
        for open in files.values_mut() {
            // What cannot be written now is said when the next line cannot.
            let _ = open.file.flush();
        }
    }
}

fn write(
    directory: &Path,
    files: &mut HashMap<String, Open>,
    name: &str,
    line: &[u8],
) -> io::Result<()> {
    let path = directory.join(format!("{name}.log"));
    if files.get(name).is_some_and(|open| open.size >= LARGEST) {
        if let Some(mut full) = files.remove(name) {
            full.file.flush()?;
        }
        for number in (1..KEPT).rev() {
            let older = |number: u32| directory.join(format!("{name}.log.{number}"));
            let _ = fs::rename(older(number), older(number + 1));
        }
        fs::rename(&path, directory.join(format!("{name}.log.1")))?;
    }
    if !files.contains_key(name) {
        fs::create_dir_all(directory)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        files.insert(name.to_owned(), Open { file: io::BufWriter::new(file), size });
    }
    let Some(open) = files.get_mut(name) else { return Ok(()) };
    open.file.write_all(line)?;
    open.size += line.len() as u64;
    Ok(())
}
