//! Health checks: how it is told that an instance has started, can serve, and lives.
//!
//! One check may stand for all three, or each may be asked in its own way. What follows from the
//! answers is in [`health`](crate::health).

use serde::{Deserialize, Serialize};

use crate::quantity::Millis;

/// How the instances of a server are asked about their health.
///
/// Until an instance is ready, probes follow each other by 20 ms; `every` applies after that, from
/// an answer to the next probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What tells whether an instance can serve.
    pub probe: Probe,
    /// From one probe to the next.
    pub every: Millis,
    /// How long an answer may take.
    pub timeout: Millis,
    /// Failures in a row that take a ready instance out of rotation; at least 1.
    pub failures: u32,
    /// Successes in a row that make an instance ready, at first and again; at least 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub successes: u32,
    /// What an instance must have shown once before it is asked anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Startup>,
    /// What tells whether an instance that has started is of any use still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Liveness>,
    /// How long an instance may be unready until another takes its place. Without it one that
    /// turns unready is given up at once: the one check stands for liveness too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_after: Option<Millis>,
}

/// The check of an instance that starts: it has to succeed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    /// What is asked.
    pub probe: Probe,
    /// How long an answer may take.
    pub timeout: Millis,
    /// How long after it was made an instance is given up that has not started; where not given,
    /// the rollout's deadline counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Millis>,
}

/// The check of an instance that has started: one that fails it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// What is asked: one of those that need an answer.
    pub probe: Probe,
    /// From one probe to the next.
    pub every: Millis,
    /// How long an answer may take.
    pub timeout: Millis,
    /// Failures in a row by which an instance is dead; at least 1.
    pub failures: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// `GET path`; healthy when the status is the given one, or any of 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// The path, with its `/`.
        path: String,
        /// The wanted status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
    },
    /// A TCP connection; healthy when it is accepted.
    Tcp {
        /// The port.
        port: u16,
    },
    /// `grpc.health.v1.Health/Check` over HTTP/2 in the clear; healthy when it says `SERVING`.
    Grpc {
        /// The port.
        port: u16,
        /// The service that is asked about; empty for the server as a whole.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        service: String,
    },
    /// Healthy once the instance has written such a line, to either of its outputs.
    Log {
        /// Which.
        line: LogLine,
    },
    /// Healthy when the program has run for so long.
    Running {
        /// How long.
        after: Millis,
    },
}

/// Which line of an instance's output is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLine {
    /// One with this text in it.
    Contains(String),
    /// One in which this regular expression (of the Rust crate `regex`) is found.
    Matches(String),
}

impl Health {
    /// The ports that are known to speak HTTP because of these checks.
    pub fn http_ports(&self) -> impl Iterator<Item = u16> {
        let startup = self.startup.as_ref().map(|startup| &startup.probe);
        let liveness = self.liveness.as_ref().map(|liveness| &liveness.probe);
        [Some(&self.probe), startup, liveness].into_iter().flatten().filter_map(Probe::http_port)
    }
}

impl Probe {
    /// Whether an answer is asked for each time, so that it can get worse.
    pub fn can_fail_later(&self) -> bool {
        match self {
            Probe::Http { .. } | Probe::Tcp { .. } | Probe::Grpc { .. } => true,
            Probe::Log { .. } | Probe::Running { .. } => false,
        }
    }

    fn http_port(&self) -> Option<u16> {
        match self {
            Probe::Http { port, .. } => Some(*port),
            _ => None,
        }
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands the field over so")]
fn is_one(count: &u32) -> bool {
    *count == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_is_written_as_it_always_was() {
        let text = r#"{"probe":{"http":{"port":8080,"path":"/healthz"}},"every":1000,"timeout":500,"failures":3}"#;
        let health: Health = serde_json::from_str(text).unwrap();
        assert_eq!((health.successes, &health.startup, &health.liveness), (1, &None, &None));
        assert_eq!(serde_json::to_string(&health).unwrap(), text);
        assert_eq!(health.http_ports().collect::<Vec<_>>(), [8080]);
    }
}
