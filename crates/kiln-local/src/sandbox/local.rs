//! The side of whoever asks: starts a helper, hands its output on, and waits for its answer.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use kiln_image::sandbox::{Ending, Finished, Job, Sandbox, SandboxError};

use super::message::{Answer, Ended, Order, receive, send};

/// How long the helper may take beyond the time of its job.
const HELPER_LIMIT: Duration = Duration::from_secs(60);
/// The longest line that is handed on whole, in bytes.
const LINE_BYTES: u64 = 4096;

/// Sandboxes on this machine.
pub struct LocalSandbox {
    root: PathBuf,
    program: PathBuf,
}

impl LocalSandbox {
    /// Sandboxes of the root at `root`, whose helpers are `program --root ROOT sandbox`.
    pub fn new(root: &Path, program: &Path) -> Self {
        Self { root: root.to_owned(), program: program.to_owned() }
    }

    fn start(&self, output: OwnedFd) -> io::Result<(UnixStream, std::process::Child)> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .arg("sandbox")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output))
            .spawn()?;
        Ok((ours, child))
    }
}

impl fmt::Debug for LocalSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSandbox").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Sandbox for LocalSandbox {
    fn run(&self, job: &Job<'_>, output: &(dyn Fn(&str) + Sync)) -> Result<Finished, SandboxError> {
        if !rustix::process::geteuid().is_root() {
            let text = "only root may run programs of an image; run the command as root";
            return Err(SandboxError::Unavailable(text.to_owned()));
        }
        let unavailable =
            |what: &str, error: io::Error| SandboxError::Unavailable(format!("{what}: {error}"));
        let (reader, writer) = io::pipe().map_err(|e| unavailable("a pipe for the output", e))?;
        let (mut socket, mut child) = self
            .start(writer.into())
            .map_err(|e| unavailable(&format!("start {}", self.program.display()), e))?;
        thread::scope(|scope| {
            // It ends with the last process that has the other end of the pipe.
            scope.spawn(|| hand_on(reader, output));
            let limit = job.bounds.time.saturating_add(HELPER_LIMIT);
            let answer = socket
                .set_read_timeout(Some(limit))
                .and_then(|()| send(&mut socket, &Order::of(job)))
                .and_then(|()| receive::<Answer>(&mut socket));
            // The helper ends at the latest when its input does.
            drop(socket);
            let ended = child.wait();
            match answer {
                Ok(Some(answer)) => understood(answer, job),
                Ok(None) => {
                    let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                    Err(SandboxError::Unavailable(format!("its helper gave no answer ({how})")))
                }
                Err(error) => Err(unavailable("ask its helper", error)),
            }
        })
    }
}

fn understood(answer: Answer, job: &Job<'_>) -> Result<Finished, SandboxError> {
    match answer {
        Answer::Ended { how, out_of_memory } => {
            let ending = match how {
                Ended::Status(status) => Ending::Status(status),
                Ended::Signal(signal) => Ending::Signal(signal),
            };
            Ok(Finished { ending, out_of_memory })
        }
        Answer::Program(text) => Err(SandboxError::Program(text)),
        Answer::Deadline => Err(SandboxError::Deadline(job.bounds.time)),
        Answer::Unavailable(text) => Err(SandboxError::Unavailable(text)),
    }
}

/// Hands each line on, until there is nobody left who could write one.
fn hand_on(reader: PipeReader, output: &(dyn Fn(&str) + Sync)) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, LINE_BYTES);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => output(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r'])),
        }
    }
}
