//! What the daemon and its clients say to each other: HTTP/1.1 and JSON over the unix socket
//! `ROOT/run/kiln.sock`, paths under `/v1`.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/version` | [`Version`] |
//! | `GET /v1/guard` | [`GuardReport`](kiln_engine::guard::GuardReport) |
//! | `GET /v1/stacks` | names, in order |
//! | `POST /v1/stacks/S/apply` with [`Apply`] | lines of [`Line`] |
//! | `POST /v1/stacks/S/scale` with [`Scale`] | lines of [`Line`] |
//! | `POST /v1/stacks/S/resume` | `null` |
//! | `POST /v1/stacks/S/cancel` | the number of the generation that was given up |
//! | `GET /v1/stacks/S/status` | [`Status`](document::Status) |
//! | `POST /v1/stacks/S/measure` | [`Drift`](document::Drift) |
//! | `POST /v1/stacks/S/backups` with [`BackupQuestion`] | [`Answer`](kiln_engine::backup::Answer) |
//! | `POST /v1/accept` with [`Acceptance`] | what had been wrong with the store, in words |
//! | `GET /v1/follows` | list of [`Following`](follows::Following) |
//! | `POST /v1/follows` with [`Follow`](crate::follow::registry::Follow) | [`Following`](follows::Following) |
//! | `POST /v1/follows/ID/look`, `retry`, `stop` | [`Following`](follows::Following) |
//!
//! A stream is newline-delimited JSON; its first line says what was decided, its last how it
//! ended. A client that goes away changes nothing. What is refused is answered with a status of
//! 400 or above and a [`Fault`]. No request changes an instance that exists.

pub mod document;
pub mod follows;

use kiln_engine::actor::Actor;
use kiln_engine::backup::Ask;
use kiln_engine::engine::Proposal;
use kiln_engine::journal::Abandonment;
use kiln_engine::progress::Progress;
use kiln_model::generation::{Content, Origin};
use kiln_model::name::ComponentId;
use serde::{Deserialize, Serialize};

/// The longest body of a request in bytes.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// The version of this program, which client and daemon must share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The program's version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
}

/// A content that is to be applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Apply {
    /// What is wanted.
    pub content: Content,
    /// The active generation that it was planned against.
    pub parent: Option<u64>,
    /// Where it comes from.
    pub origin: Origin,
    /// The commit that the stack's directory was at.
    pub commit: Option<String>,
    /// What gave rise to it, where that was a `webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Apply {
    /// The proposal that `by` makes.
    pub fn proposed(self, by: Actor) -> Proposal {
        let Apply { content, parent, origin, commit, cause } = self;
        let by = by.for_commit(commit.as_deref(), cause);
        Proposal { content, parent, origin, commit, by }
    }
}

/// That the store is taken as it is for the truth from now on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acceptance {
    /// Why.
    pub because: String,
}

/// A count that is to be pinned, or (`None`) given back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scale {
    /// The server.
    pub component: ComponentId,
    /// How many instances.
    pub count: Option<u32>,
}

/// What is asked of a database's backups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupQuestion {
    /// The database.
    pub database: ComponentId,
    /// What is asked.
    pub ask: Ask,
}

/// One line of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
pub enum Line {
    /// What was decided, durably. The first line.
    Decided(Decision),
    /// Something happened.
    Progress(Progress),
    /// How it ended. The last line.
    End(End),
}

/// What was decided on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "decision", content = "generation")]
pub enum Decision {
    /// A new generation is being rolled out.
    Started(u64),
    /// A rollout of the same content was under way already.
    Joined(u64),
    /// The stack has this content already.
    Unchanged(u64),
    /// A count within this generation was pinned or given back.
    Scaled(u64),
}

impl Decision {
    /// The generation that it is about.
    pub fn generation(self) -> u64 {
        match self {
            Self::Started(n) | Self::Joined(n) | Self::Unchanged(n) | Self::Scaled(n) => n,
        }
    }
}

/// How a change ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum End {
    /// The generation serves.
    Active {
        /// Its number.
        generation: u64,
        /// Whether all that it replaced is gone; else it drains on.
        settled: bool,
    },
    /// It was given up.
    Abandoned {
        /// Its number.
        generation: u64,
        /// Why.
        reason: Abandonment,
        /// The generation that serves on, where there is one.
        serving: Option<u64>,
    },
}

/// What sort of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The request makes no sense to this daemon.
    BadRequest,
    /// There is no such thing.
    NotFound,
    /// It does not fit what there is now.
    Conflict,
    /// The stack is pinned, and the request came from a branch that is followed.
    Pinned,
    /// The store is not what was written: nothing is decided on it.
    Tampered,
    /// The daemon can't.
    Internal,
    /// The daemon is ending; the next one can be asked.
    Ending,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What sort it is.
    pub kind: FaultKind,
    /// What is wrong.
    pub message: String,
    /// What it comes from, nearest first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// The way out.
    #[serde(default)]
    pub help: Option<String>,
}
