//! What is seen of a running stack: events, logs, use.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// What `events` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "events")]
pub(crate) struct EventsDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The events, oldest first.
    pub(crate) events: Vec<EventDocument>,
}

/// One event; with `--follow`, one to a line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct EventDocument {
    /// Its number among the entries of all stacks.
    pub(crate) number: u64,
    /// The stack; empty for what belongs to none.
    pub(crate) stack: String,
    /// When.
    pub(crate) at: String,
    /// Who stands behind it.
    pub(crate) by: ActorDocument,
    /// The SHA-256 that ties it to all entries before it.
    pub(crate) hash: String,
    /// The chain value of the generation, for what is `committed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    /// What happened, such as `committed` or `made`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it is about: generation, component, instance, reason.
    #[serde(flatten)]
    pub(crate) fields: serde_json::Map<String, Value>,
}

/// Who stands behind an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ActorDocument {
    /// `keeper` (Kiln itself), `peer` (a process that asked) or `follower` (of a branch).
    pub(crate) kind: &'static str,
    /// The user of the process.
    pub(crate) uid: Option<u32>,
    /// The process.
    pub(crate) pid: Option<i32>,
    /// The path of its program.
    pub(crate) program: Option<String>,
    /// The user that has logged in, whoever it has become since.
    pub(crate) login: Option<u32>,
    /// Its terminal.
    pub(crate) terminal: Option<String>,
    /// The repository that is followed.
    pub(crate) url: Option<String>,
    /// The branch that is followed.
    pub(crate) branch: Option<String>,
    /// The commit that was acted for.
    pub(crate) commit: Option<String>,
    /// What had the branch looked at, where that was a `webhook`.
    pub(crate) cause: Option<String>,
    /// In words.
    pub(crate) text: String,
}

/// What `events --verify` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "events-verification")]
pub(crate) struct AuditDocument {
    /// Whether all is as it was written.
    pub(crate) sound: bool,
    /// How many entries there are, of all stacks.
    pub(crate) entries: u64,
    /// The hash of the last one: kept elsewhere, it proves later what the log was by now.
    pub(crate) head: String,
    /// What is not as it was written, in the order of the entries.
    pub(crate) problems: Vec<ProblemDocument>,
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProblemDocument {
    /// `altered`, `reordered`, `removed`, `truncated`, `detached`, `forked`, `head`, `key`,
    /// `generation` or `database`.
    pub(crate) kind: &'static str,
    /// The first entry that it is about.
    pub(crate) from: Option<u64>,
    /// The last one.
    pub(crate) to: Option<u64>,
    /// In words.
    pub(crate) text: String,
}

/// What `events --accept` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "acceptance")]
pub(crate) struct AcceptanceDocument {
    /// What had been wrong and was taken as it is; empty where nothing was.
    pub(crate) accepted: Vec<String>,
}

/// What `logs` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "logs")]
pub(crate) struct LogsDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The component.
    pub(crate) component: String,
    /// The lines, oldest first.
    pub(crate) lines: Vec<LogLine>,
}

/// One line of a log; with `--follow`, one to a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub(crate) struct LogLine {
    /// When it was received.
    pub(crate) time: String,
    /// The instance that wrote it.
    pub(crate) instance: String,
    /// `stdout` or `stderr`.
    pub(crate) stream: String,
    /// The line, without its end.
    pub(crate) text: String,
}

/// What `top` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "top")]
pub(crate) struct TopDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The running instances, by component and id.
    pub(crate) instances: Vec<UseDocument>,
}

/// What one instance uses.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct UseDocument {
    /// The component.
    pub(crate) component: String,
    /// The instance.
    pub(crate) instance: String,
    /// Its state.
    pub(crate) state: String,
    /// How many processes and threads it has.
    pub(crate) tasks: u64,
    /// The share of one processor that it used while measured, in percent.
    pub(crate) cpu_percent: f64,
    /// The processor time that it has used since its start, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Resident memory in bytes.
    pub(crate) memory: u64,
    /// The most memory that it may use, in bytes.
    pub(crate) memory_limit: Option<u64>,
    /// Requests that it is answering.
    pub(crate) in_flight: u32,
}
