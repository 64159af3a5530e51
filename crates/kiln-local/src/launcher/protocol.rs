//! What the launcher and its clients say to each other.
//!
//! A message is a little-endian `u32` length followed by one JSON document of that length, over a
//! unix stream socket at `ROOT/run/launcher.sock`. Every request carries [`VERSION`] and an id,
//! which its reply repeats; events carry none and go to clients that have subscribed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use kiln_model::spec::server::Seccomp;
use serde::{Deserialize, Serialize};

pub use super::source::{ImageSource, Seal, Stamp};

/// The protocol's version. A launcher refuses another one.
pub const VERSION: u32 = 3;
/// The longest message, in bytes. Longer ones end the connection.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A request as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// Chosen by the client; the reply repeats it.
    pub id: u64,
    /// What is asked for.
    pub request: Request,
}

/// What a client can ask for. There is no way to change an instance that exists.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make an instance. Answered with [`Answer::Launched`] once its program runs.
    Launch(Box<LaunchSpec>),
    /// Ask the main process to end, and end the whole instance after the grace.
    Stop {
        /// The instance's id.
        instance: String,
        /// Number of the signal that asks.
        signal: i32,
        /// Milliseconds until SIGKILL.
        grace_ms: u64,
    },
    /// SIGKILL every process of the instance.
    Kill {
        /// The instance's id.
        instance: String,
    },
    /// All instances that are running or not yet forgotten.
    List,
    /// Remove what is kept of an instance that has ended. Answered also when there is none.
    Forget {
        /// The instance's id.
        instance: String,
    },
    /// Receive an [`Event`] for each exit from now on.
    Subscribe,
    /// End the launcher. Refused while instances run.
    Shutdown,
}

/// What the launcher sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The answer to the request of that id.
    Reply {
        /// The request's id.
        id: u64,
        /// What came of it.
        result: Result<Answer, Refusal>,
    },
    /// Something has happened.
    Event(Event),
}

/// What a request that was granted gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The instance's program runs.
    Launched(Launched),
    /// The instances, by id.
    Instances(Vec<InstanceState>),
    /// Done, or nothing was to be done.
    Done,
}

/// An instance whose program has been started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// Process id of the main process, as the host sees it.
    pub pid: i32,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
}

/// What the launcher knows of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// The instance's id.
    pub instance: String,
    /// Process id of the main process, as the host sees it. Not valid after the exit.
    pub pid: i32,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// An instance's main process has ended, and with it every process of the instance.
    Exited {
        /// The instance's id.
        instance: String,
        /// How it ended.
        exit: Exit,
    },
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status of the main process, when it has exited.
    pub code: Option<i32>,
    /// Number of the signal that ended it, when one has.
    pub signal: Option<i32>,
    /// The kernel has killed a process of the instance for want of memory.
    pub out_of_memory: bool,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with status {code}")?,
            (None, Some(signal)) => write!(f, "ended by signal {signal}")?,
            (None, None) => f.write_str("ended unseen")?,
        }
        if self.out_of_memory { f.write_str(" (out of memory)") } else { Ok(()) }
    }
}

/// Why a request was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The instance could not be made; nothing of it is left.
    #[error("the instance cannot be started")]
    Launch(#[source] LaunchError),
    /// An instance of this id is running or not yet forgotten.
    #[error("an instance {0} exists already")]
    Exists(String),
    /// No instance of this id is known.
    #[error("there is no instance {0}")]
    Unknown(String),
    /// The request needs an instance that has ended.
    #[error("the instance {0} is still running")]
    Running(String),
    /// The launcher cannot end while this many instances run.
    #[error("{0} instances are still running")]
    Busy(usize),
    /// The launcher speaks another version.
    #[error(
        "the launcher speaks version {0} of the protocol, this program version {VERSION}; \
         use the same version of kiln for both"
    )]
    Version(u32),
    /// The message is not a request.
    #[error("the launcher cannot read the request: {0}")]
    Malformed(String),
}

/// A failed start: where, and what the kernel said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{stage}: {text}")]
pub struct LaunchError {
    /// Which step failed.
    pub stage: Stage,
    /// The kernel's error number, where there is one.
    pub errno: Option<i32>,
    /// What was tried, and the cause.
    pub text: String,
}

/// The steps of a start, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The specification is checked.
    Spec,
    /// What keeps the image from being altered is put in place.
    Seal,
    /// The image is mounted.
    Image,
    /// The user is looked up in the image.
    User,
    /// Control groups are made and limited.
    Cgroup,
    /// The process is made, with its namespaces.
    Clone,
    /// The user namespace is given its ids, and the root its owners.
    UserNamespace,
    /// The interface is attached.
    Network,
    /// What is kept of the instance is written.
    Record,
    /// The host name is set.
    Hostname,
    /// The root is put together.
    Root,
    /// /proc is mounted.
    Proc,
    /// /sys is mounted.
    Sys,
    /// /dev is mounted.
    Dev,
    /// Writable space is mounted.
    Writable,
    /// Directories of the host are mounted.
    Volumes,
    /// Given files are mounted.
    Files,
    /// Limits, ids, capabilities and the system call filter are set.
    Privileges,
    /// The working directory is entered.
    Workdir,
    /// The program is executed.
    Exec,
    /// The deadline of the start has passed.
    Deadline,
    /// The process was ended before its program ran.
    Ended,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spec => "specification",
            Self::Seal => "integrity of the image",
            Self::Image => "image",
            Self::User => "user",
            Self::Cgroup => "control group",
            Self::Clone => "process",
            Self::UserNamespace => "user namespace",
            Self::Network => "network",
            Self::Record => "record",
            Self::Hostname => "host name",
            Self::Root => "root",
            Self::Proc => "/proc",
            Self::Sys => "/sys",
            Self::Dev => "/dev",
            Self::Writable => "writable space",
            Self::Volumes => "volumes",
            Self::Files => "files",
            Self::Privileges => "privileges",
            Self::Workdir => "working directory",
            Self::Exec => "program",
            Self::Deadline => "deadline",
            Self::Ended => "end",
        })
    }
}

impl LaunchError {
    /// A failure that is not the kernel's.
    pub fn new(stage: Stage, text: impl Into<String>) -> Self {
        Self { stage, errno: None, text: text.into() }
    }

    /// A failed system call; `what` says what was tried.
    pub fn os(stage: Stage, what: impl fmt::Display, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        Self { stage, errno: error.raw_os_error(), text: format!("{what}: {error}") }
    }
}

/// All that an instance is to be. Holds secrets: it is sent, used and dropped, never kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Unique in the root; lower-case letters, digits and `-`, at most 63 bytes.
    pub instance: String,
    /// What the instance is of; kept in its record.
    pub labels: Labels,
    /// What its root filesystem is.
    pub image: ImageSource,
    /// The program and its arguments; a program without `/` is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where the program starts, an absolute path inside the image.
    pub workdir: String,
    /// `name`, `uid`, `name:group` or `uid:gid`, looked up in the image's /etc/passwd and
    /// /etc/group. Empty means `0:0`.
    pub user: String,
    /// The host name, at most 64 bytes.
    pub hostname: String,
    /// The writable places; there are no others but volumes.
    pub writable: Vec<WritableMount>,
    /// Directories of the host, mounted in this order.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// Small directories of the instance's own, mounted read-only.
    #[serde(default)]
    pub directories: Vec<DirectoryMount>,
    /// Files of the instance's own, mounted read-only over files of the image.
    pub files: Vec<FileMount>,
    /// Bounds that the kernel enforces.
    pub limits: Limits,
    /// Which system calls it may make.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Whether its system calls are to be learned: each waits until whoever holds the listener that
    /// its program inherits lets it go on.
    #[serde(default)]
    pub learns: bool,
    /// Where it is attached. Without it there is only a loopback interface, which is down.
    pub network: Option<NetworkAttachment>,
    /// A running instance whose network interfaces it shares from the start, instead of being
    /// attached anywhere. It has no /sys then.
    #[serde(default)]
    pub joins: Option<String>,
}

impl fmt::Debug for LaunchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments, environment and files may hold secrets, and debug output ends in logs.
        f.debug_struct("LaunchSpec")
            .field("instance", &self.instance)
            .field("labels", &self.labels)
            .field("image", &self.image)
            .field("program", &self.argv.first())
            .field("limits", &self.limits)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// What an instance is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Name of the stack.
    pub stack: String,
    /// The component, as `kind.name`.
    pub component: String,
    /// The component's digest.
    pub digest: String,
    /// The generation that asked for it.
    pub generation: u64,
    /// More that a caller wants to read back; no secrets.
    #[serde(default)]
    pub more: BTreeMap<String, String>,
}

/// A sized tmpfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WritableMount {
    /// An absolute path of a directory of the image, or `/dev/shm`.
    pub path: String,
    /// Its size in bytes, more than 0; the kernel rounds up to whole pages. It holds at most one
    /// file per KiB, or 1024.
    pub size_bytes: u64,
    /// Permission bits of its root, which belongs to the instance's user.
    pub mode: u32,
    /// Whether programs in it may be executed.
    #[serde(default)]
    pub exec: bool,
}

/// A directory of the host. Its files belong to those of the image's users whose numbers they
/// bear on the host, whatever ids the instance is mapped to. Nothing in it is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The directory, an absolute path on the host.
    pub source: PathBuf,
    /// An absolute path of a directory of the image, or of a volume that stands before it.
    pub path: String,
    /// Whether nothing can be written there.
    pub read_only: bool,
    /// Whether the directory itself, but nothing in it, is given to the instance's user first.
    pub own: bool,
}

/// A small directory that is mounted, read-only, over a directory of the image.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryMount {
    /// An absolute path of a directory of the image.
    pub path: String,
    /// Its files, by their names; everybody inside may read them.
    pub files: BTreeMap<String, String>,
}

/// A small file that is mounted, read-only, over a file of the image.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// An absolute path of a file of the image.
    pub path: String,
    /// What it holds.
    pub content: String,
    /// Its permission bits.
    pub mode: u32,
}

/// Bounds of an instance. A bound that the kernel cannot enforce is an error of the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, in bytes, swap included.
    pub memory_bytes: Option<u64>,
    /// Processor time, in thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open descriptors of a process; the launcher's hard limit bounds it. Without a bound a
    /// program has 1024 and may raise that itself.
    pub open_files: Option<u64>,
    /// Added to the score by which the kernel chooses whom to kill when memory runs out,
    /// 0 to 1000.
    #[serde(default)]
    pub oom_score_adjust: u16,
}

/// A place on a network instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// Where the network instance's namespace is pinned, an absolute path on the host.
    pub namespace: PathBuf,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub prefix_bits: u8,
    /// The default route's next hop.
    pub gateway: Ipv4Addr,
}
