//! Running a program of an image on its tree before the image exists: what is asked for, and what
//! comes of it. Who can do it on a machine implements [`Sandbox`] and is handed to the store
//! ([`crate::store::ImageStore::with_sandbox`]).
//!
//! A program in a sandbox sees the directory as its root and nothing else of the machine: it has
//! process, host name, IPC and control group namespaces of its own, and a network of its own that
//! leads nowhere, unless its job asks for the machine's. It may do to the directory what root may
//! do to files (change owners, modes and capabilities of programs), and nothing that reaches
//! further. `/proc` and a minimal `/dev` are there; `/tmp` is writable space that is gone at the
//! end. All of it ends with its first process, at the bounds of the job, or with whoever asked.
//!
//! So that the same tree gives the same result, the clock of the wall stands still at
//! [`Job::clock`], addresses are not randomised, and host name, process numbers, environment and
//! `umask` are always the same. Not covered are random numbers, the times of files while the
//! program runs, clocks that only run on, the number of processors, and what threads do in
//! which order.

mod directory;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use kiln_model::quantity::Bytes;

pub use directory::{DirectoryError, Gathered, Laid};

/// The date that programs see where no lock says one: 1 January 1980, the first that a ZIP
/// archive can hold, in seconds since 1970.
pub const NO_DATE: i64 = 315_532_800;
/// The host name of every sandbox.
pub const HOST_NAME: &str = "build";
/// Places of the root that are mounted over while a program runs, so that nothing that is put
/// there ends in the image. They must be directories of the root.
pub const COVERED: [&str; 3] = ["dev", "proc", "tmp"];

/// A program to be run.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The directory that is its root. Owners and modes in it are those of the image.
    pub root: &'a Path,
    /// The program and its arguments; a program without `/` is looked up in `PATH` of `env`.
    pub argv: &'a [String],
    /// The whole environment.
    pub env: &'a BTreeMap<String, String>,
    /// Where it starts, an absolute path in the root.
    pub workdir: &'a str,
    /// The user and the group that it runs as.
    pub user: (u32, u32),
    /// Files of its own, read-only: over files of the root of the same path, or below `/tmp`,
    /// where they are made with the directories above them.
    pub files: &'a [JobFile],
    /// Whether it has the network of the machine.
    pub network: bool,
    /// What the clock of the wall stands at, in seconds since 1970.
    pub clock: i64,
    /// What it may use.
    pub bounds: Bounds,
}

/// A file that is there for one job only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFile {
    /// An absolute path in the root.
    pub path: String,
    /// What is in it.
    pub content: String,
    /// Whether it is a program.
    pub executable: bool,
}

/// What a job may use before it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Memory, with what is in `/tmp`.
    pub memory: Bytes,
    /// Processes and threads.
    pub pids: u64,
    /// Time of the wall.
    pub time: Duration,
}

impl Default for Bounds {
    /// 2 GiB, 4096 processes, 30 minutes.
    fn default() -> Self {
        let time = Duration::from_secs(30 * 60);
        Self { memory: Bytes::mib(2048), pids: 4096, time }
    }
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How the program has ended.
    pub ending: Ending,
    /// Whether the kernel has killed a process of it for want of memory.
    pub out_of_memory: bool,
}

/// A job that was not done to its end.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program could not be started.
    #[error("the program cannot be started: {0}")]
    Program(String),
    /// Its time was up.
    #[error("it has not ended within {} s and was killed", .0.as_secs())]
    Deadline(Duration),
    /// The machine does not offer what a sandbox needs.
    #[error("the sandbox cannot be made: {0}")]
    Unavailable(String),
}

/// Runs programs on the directories of images that are being built.
pub trait Sandbox: fmt::Debug + Send + Sync {
    /// Runs a job to its end. Its output is handed on line by line while it runs. When this
    /// returns, no process of it is left, and nothing is mounted on its root.
    fn run(&self, job: &Job<'_>, output: &(dyn Fn(&str) + Sync)) -> Result<Finished, SandboxError>;
}
