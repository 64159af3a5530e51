//! Starting a root's launcher when it has none.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::sys;
use crate::instance::client::{Client, ClientError};

/// Held by whoever starts a launcher.
const START_LOCK: &str = "run/launcher.start";
/// Where the launcher's own messages go.
const LOG: &str = "logs/launcher.log";
/// How long a launcher may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How long to wait between two attempts to reach it.
const POLL: Duration = Duration::from_millis(1);

/// The launcher could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// A file of the root could not be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The program could not be run.
    #[error("cannot run {}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It has ended instead of answering.
    #[error("the launcher does not answer; {} says why", log.display())]
    Silent {
        /// The launcher's log.
        log: PathBuf,
        /// What the last attempt to reach it met.
        source: ClientError,
    },
}

/// Makes sure that the launcher of the root at `root` runs, and connects to it. Where none runs,
/// `exe --root ROOT launcher` is started, in a session of its own and without the caller's
/// descriptors. Of several callers one starts it, and all get the same.
pub fn ensure_running(root: &Path, exe: &Path) -> Result<Client, EnsureError> {
    if let Ok(client) = reach(root) {
        return Ok(client);
    }
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| EnsureError::Io { path, source }
    };
    for directory in ["run", "logs"] {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).map_err(io(&directory))?;
    }
    let path = root.join(START_LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(io(&path))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(&path)(error.into()))?;
    if let Ok(client) = reach(root) {
        return Ok(client);
    }
    let log = root.join(LOG);
    let output = OpenOptions::new().create(true).append(true).open(&log).map_err(io(&log))?;
    let child = spawn(root, exe, output)
        .map_err(|source| EnsureError::Spawn { path: exe.to_path_buf(), source })?;
    wait(root, child).map_err(|source| EnsureError::Silent { log, source })
}

/// Connects, and makes sure that somebody answers: one that is about to end does not.
fn reach(root: &Path) -> Result<Client, ClientError> {
    let mut client = Client::connect(root)?;
    client.list()?;
    Ok(client)
}

fn spawn(root: &Path, exe: &Path, output: File) -> io::Result<Child> {
    let mut command = Command::new(exe);
    command
        .arg("--root")
        .arg(root)
        .arg("launcher")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    // SAFETY: both are single system calls that touch no memory of the process.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            sys::close_on_exec_from(3)
        });
    }
    command.spawn()
}

fn wait(root: &Path, mut child: Child) -> Result<Client, ClientError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let error = match reach(root) {
            Ok(client) => {
                // It outlives the caller; reaping it when it ends is all there is left to do.
                thread::spawn(move || child.wait());
                return Ok(client);
            }
            Err(error) => error,
        };
        let ended = child.try_wait().is_ok_and(|status| status.is_some());
        if ended || Instant::now() >= deadline {
            return Err(error);
        }
        thread::sleep(POLL);
    }
}
