//! Tests of an image: what must hold in a throw-away instance of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::{Bytes, Millis};

/// One test. It runs in an instance of its own, and holds when each of its checks does before
/// the deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTest {
    /// What it is called.
    pub name: String,
    /// What must hold, all of it.
    pub checks: Vec<Check>,
    /// How long it may take.
    pub deadline: Millis,
    /// Environment, over the image's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The program and its arguments instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Writable space over the image's: path and size.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub writable: BTreeMap<String, Bytes>,
    /// Most memory of the instance.
    pub memory: Bytes,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `GET path` is answered so, sooner or later.
    Http {
        /// The port.
        port: u16,
        /// The path, with its `/`.
        path: String,
        /// The wanted status; any of 200 to 399 where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// What the body must contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<String>,
    },
    /// A TCP connection is accepted, sooner or later.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A program of the image, run beside the instance in a sandbox with the same network, ends
    /// so, sooner or later.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// The wanted exit status.
        status: i32,
        /// What it must write to its output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<String>,
    },
    /// There is a file or directory like this in the image.
    File {
        /// Where.
        path: String,
        /// What it must contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<String>,
        /// Its permission bits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Its owner: `user` or `uid`, and perhaps `:group`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// There is nothing at this path in the image.
    NoSuchFile {
        /// Where.
        path: String,
    },
    /// Nothing listens at this port, when all other checks have held.
    PortClosed {
        /// The port.
        port: u16,
    },
    /// A line that contains this is written to standard output or standard error, sooner or later.
    LogContains {
        /// What it contains.
        text: String,
    },
    /// The program runs on for so long.
    StaysUp {
        /// How long.
        time: Millis,
    },
}
