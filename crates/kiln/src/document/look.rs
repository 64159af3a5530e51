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
    /// When.
    pub(crate) at: String,
    /// What happened, such as `committed` or `made`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it is about: generation, component, instance, reason.
    #[serde(flatten)]
    pub(crate) fields: serde_json::Map<String, Value>,
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
