//! What the daemon writes about itself: lines with their time, in two bounded files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_engine::clock::{Clock as _, SystemClock};

/// How long a file grows, in bytes, before it takes the place of the older one.
const SEGMENT_BYTES: u64 = 1 << 20;

/// The daemon's log. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct DaemonLog {
    inner: Arc<Mutex<Segment>>,
    /// Whether somebody watches: then lines go to standard error too.
    echo: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    length_bytes: u64,
}

impl DaemonLog {
    /// The log at `path`, and `path` with `.1` behind it for what is older.
    pub fn open(path: &Path) -> io::Result<Self> {
        let inner = Arc::new(Mutex::new(Segment::open(path)?));
        Ok(Self { inner, echo: io::stderr().is_terminal() })
    }

    /// Adds a line. What can't be written is lost: the daemon's work goes on.
    pub fn line(&self, text: &str) {
        let line = format!("{} {}\n", SystemClock.now(), text.replace('\n', "\\n"));
        if self.echo {
            let _ = io::stderr().write_all(line.as_bytes());
        }
        let mut segment = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = segment.write(line.as_bytes());
    }
}

/// Takes what this process writes to standard error into its log, where that would be lost: a daemon
/// in the background has none. It must be called while the process has one thread.
pub(super) fn keep_errors(log: DaemonLog) -> io::Result<()> {
    const NULL: (u32, u32) = (1, 3);
    let device = rustix::fs::fstat(io::stderr())?.st_rdev;
    if (rustix::fs::major(device), rustix::fs::minor(device)) != NULL {
        return Ok(());
    }
    let (reader, writer) = io::pipe()?;
    rustix::stdio::dup2_stderr(writer)?;
    let keep = move || {
        for line in BufReader::new(reader).split(b'\n') {
            let Ok(line) = line else { return };
            log.line(&String::from_utf8_lossy(&line));
        }
    };
    std::thread::Builder::new().name("stderr".to_owned()).spawn(keep).map(drop)
}

impl Segment {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length_bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length_bytes })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length_bytes >= SEGMENT_BYTES {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.path, older)?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(bytes)?;
        self.length_bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        let log = DaemonLog::open(&path).unwrap();
        let text = "x".repeat(64 << 10);
        for _ in 0..60 {
            log.line(&text);
        }
        let total: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!((1 << 20..=3 << 20).contains(&total), "{total}");
    }
}
