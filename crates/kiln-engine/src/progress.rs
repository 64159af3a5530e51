//! What a client is told while a stack is on its way.

use serde::{Deserialize, Serialize};

use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::plan::{Milestone, Waiting};
use kiln_model::quantity::Timestamp;

use crate::journal::Abandonment;

/// One thing that happened, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When.
    pub at: Timestamp,
    /// To which stack.
    pub stack: StackName,
    /// What.
    pub event: ProgressEvent,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ProgressEvent {
    /// A generation is being rolled out.
    Committed {
        /// Its number.
        generation: u64,
        /// When it is given up.
        deadline: Timestamp,
    },
    /// By what is asked of a server, another count of instances is wanted.
    Sized {
        /// The server.
        component: ComponentId,
        /// How many.
        count: u32,
        /// What it rests on.
        because: String,
    },
    /// Something was made.
    Created {
        /// The component.
        component: ComponentId,
        /// The new instance.
        instance: InstanceId,
        /// Why.
        because: String,
    },
    /// The gateway serves by a new table.
    Routed {
        /// Its epoch.
        epoch: u64,
    },
    /// An instance is out of rotation and finishes what it has begun.
    Draining {
        /// Which.
        instance: InstanceId,
        /// Why.
        because: String,
    },
    /// Something is gone.
    Destroyed {
        /// Which instance.
        instance: InstanceId,
        /// Why.
        because: String,
    },
    /// A step failed; it may be tried again.
    Failed {
        /// What, and why.
        error: String,
    },
    /// Which servers are not ready yet.
    Waiting {
        /// Those.
        waiting: Vec<Waiting>,
    },
    /// The rollout has come to a step, or all of it serves and is watched.
    Reached {
        /// The generation.
        generation: u64,
        /// What it has come to.
        milestone: Milestone,
    },
    /// All that the generation wants serves.
    Active {
        /// Its number.
        generation: u64,
    },
    /// The generation was given up.
    Abandoned {
        /// Its number.
        generation: u64,
        /// Why.
        reason: Abandonment,
    },
    /// Nothing is left to do.
    Converged {
        /// The generation that stands.
        generation: u64,
    },
}
