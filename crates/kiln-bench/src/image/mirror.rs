//! A mirror of Debian on this machine: it fetches a file from the real one when it is first asked
//! for, and serves it from the disk from then on, so that no network is measured.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::Result;

/// Where files come from.
const UPSTREAM: &str = "http://deb.debian.org";
/// The longest file, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The mirror; its threads end with the program.
pub(super) struct Mirror {
    url: String,
}

impl Mirror {
    /// Serves on a free port of loopback and keeps files below `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let directory = directory.to_owned();
        std::thread::spawn(move || {
            let fetching = &*Box::leak(Box::new(Mutex::new(())));
            for connection in listener.incoming().flatten() {
                let directory = directory.clone();
                std::thread::spawn(move || {
                    // A client that goes away needs no answer.
                    let _ = serve(connection, &directory, fetching);
                });
            }
        });
        Ok(Self { url })
    }

    /// Its address, without a path.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

fn serve(connection: TcpStream, directory: &Path, fetching: &Mutex<()>) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
        let found = file(path, directory, fetching);
        match found {
            Some(file) => {
                let mut file = fs::File::open(file)?;
                let length = file.metadata()?.len();
                write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
                io::copy(&mut file, &mut writer)?;
            }
            None => writer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
    }
}

/// The file of a path, fetched if it is not there.
fn file(path: &str, directory: &Path, fetching: &Mutex<()>) -> Option<PathBuf> {
    let kept = directory.join(path.replace('/', "%"));
    if kept.exists() {
        return Some(kept);
    }
    let _one = fetching.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if kept.exists() {
        return Some(kept);
    }
    let mut answer = ureq::get(format!("{UPSTREAM}/{path}")).call().ok()?;
    let bytes = answer.body_mut().with_config().limit(MAX_BYTES).read_to_vec().ok()?;
    let unfinished = kept.with_extension("part");
    fs::write(&unfinished, bytes).ok()?;
    fs::rename(&unfinished, &kept).ok()?;
    Some(kept)
}
