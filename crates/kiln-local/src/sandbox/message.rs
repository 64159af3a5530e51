//! What is said between whoever asks, the helper and the process in the sandbox.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use kiln_image::sandbox::{Job, JobFile};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::launcher::clients::frame;

/// The longest message, in bytes.
const MAX_BYTES: u32 = 16 << 20;

/// A job, as it travels to the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) root: PathBuf,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: String,
    pub(super) user: (u32, u32),
    /// Path, content, and whether it is a program.
    pub(super) files: Vec<(String, String, bool)>,
    pub(super) network: bool,
    pub(super) clock: i64,
    pub(super) memory_bytes: u64,
    pub(super) pids: u64,
    pub(super) time_ms: u64,
}

impl Order {
    pub(super) fn of(job: &Job<'_>) -> Self {
        let file = |file: &JobFile| (file.path.clone(), file.content.clone(), file.executable);
        Self {
            root: job.root.to_owned(),
            argv: job.argv.to_vec(),
            env: job.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            workdir: job.workdir.to_owned(),
            user: job.user,
            files: job.files.iter().map(file).collect(),
            network: job.network,
            clock: job.clock,
            memory_bytes: job.bounds.memory.0,
            pids: job.bounds.pids,
            time_ms: u64::try_from(job.bounds.time.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }
}

/// How a program has ended: exit status, else signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Status(i32),
    Signal(i32),
}

/// From the helper, when all is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The program has ended.
    Ended { how: Ended, out_of_memory: bool },
    /// It could not be started.
    Program(String),
    /// Its time was up.
    Deadline,
    /// The machine does not offer what is needed.
    Unavailable(String),
}

/// From process 1 of the sandbox to the helper, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The sandbox could not be put together.
    Unavailable(String),
    /// The program could not be started.
    Program(String),
    /// The program has ended.
    Ended(Ended),
}

/// Sends one message.
pub(super) fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&frame(message)?)
}

/// Waits for one message; nothing when the other side has ended.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_le_bytes(head);
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}
