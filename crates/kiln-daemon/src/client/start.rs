//! Starting the daemon in the background, where none runs.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::root::{Locked, Root};

use super::{Client, ClientError};

/// How long a daemon may take until it answers.
const START_BOUND: Duration = Duration::from_secs(20);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// A connection to the daemon of `root`; where none runs, `program` is started as one and
/// `told` is called with its process id. Of several clients that do so at once, one starts it.
pub async fn ensure_daemon(
    root: &Root,
    program: &Path,
    told: impl FnOnce(u32),
) -> Result<Client, ClientError> {
    match Client::connect(root).await {
        Err(ClientError::NotRunning { .. }) => {}
        result => return result,
    }
    root.prepare()?;
    let _starting = lock_start(root).await?;
    match Client::connect(root).await {
        Err(ClientError::NotRunning { .. }) => {}
        result => return result,
    }
    let mut child = start(root, program)?;
    let begun = Instant::now();
    loop {
        match Client::connect(root).await {
            Err(ClientError::NotRunning { .. }) => {}
            result => {
                if result.is_ok() {
                    told(child.id());
                }
                return result;
            }
        }
        let mut ended = child.try_wait().ok().flatten();
        let late = begun.elapsed() > START_BOUND;
        if ended.is_some_and(was_told_to) && !late {
            child = start(root, program)?;
            ended = None;
        }
        if ended.is_some() || late {
            return Err(ClientError::NotStarted {
                root: root.path().display().to_string(),
                what: match ended {
                    Some(status) => format!("ended at once ({status})"),
                    None => format!("does not answer within {} s", START_BOUND.as_secs()),
                },
                last_line: last_line(root),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Starts a daemon. What it is handed is this: nothing of its starter's. It closes what it may
/// have inherited besides, and becomes the leader of a session of its own.
fn start(root: &Root, program: &Path) -> Result<Child, ClientError> {
    Command::new(program)
        .arg("--root")
        .arg(root.path())
        .arg("serve")
        // Its starter's environment may hold secrets.
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| ClientError::Spawn { program: program.display().to_string(), source })
}

/// Whether somebody has ended it, such as one who upgrades: there is nothing wrong with it.
fn was_told_to(status: ExitStatus) -> bool {
    status.success() || matches!(status.signal(), Some(libc::SIGKILL | libc::SIGTERM))
}

async fn lock_start(root: &Root) -> Result<Locked, ClientError> {
    let begun = Instant::now();
    loop {
        if let Some(locked) = root.try_lock_start()? {
            return Ok(locked);
        }
        if begun.elapsed() > START_BOUND {
            return Err(ClientError::NotStarted {
                root: root.path().display().to_string(),
                what: "another client has been starting it for too long".to_owned(),
                last_line: last_line(root),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The last line of the daemon's log, without its time.
fn last_line(root: &Root) -> Option<String> {
    let log = std::fs::read_to_string(root.daemon_log()).ok()?;
    let (_, text) = log.lines().last()?.split_once(' ')?;
    Some(text.to_owned())
}
