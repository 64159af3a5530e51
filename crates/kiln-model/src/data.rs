//! What is measured of databases: who holds the data, how far each copy of it goes, and whom the
//! gateway lets through.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{ComponentId, InstanceId, StackName};
use crate::quantity::{Bytes, Timestamp};

/// A line of a database's data: what is written goes on in one branch. Going back to an earlier state
/// opens another, and leaves the present one as it is, so that nothing is lost by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Branch {
    /// The generation that opened it; 0 for the first, and where it is not known yet.
    pub number: u64,
    /// What it began with.
    pub from: BranchOrigin,
}

/// What a branch began with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchOrigin {
    /// Nothing: it is the first.
    Beginning,
    /// All that is in a volume that is kept.
    Volume {
        /// The volume.
        volume: InstanceId,
        /// The generation at whose end it was left.
        generation: u64,
    },
    /// What the database's backups restore.
    Backup {
        /// `latest`, an instant, or the name of a copy.
        at: String,
    },
    /// Nothing: all that there was is removed for good once the database is not declared.
    Discarded,
}

impl Branch {
    /// The branch that every database begins with.
    pub const fn first() -> Self {
        Self { number: 0, from: BranchOrigin::Beginning }
    }

    /// A new one, which has its number when its generation has.
    pub const fn new(from: BranchOrigin) -> Self {
        Self { number: 0, from }
    }

    /// Whether its number is still to come.
    pub fn is_unnumbered(&self) -> bool {
        self.number == 0 && self.from != BranchOrigin::Beginning
    }
}

impl fmt::Display for Branch {
    /// As in `branch 7, from the end of generation 4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unnumbered() {
            f.write_str("a new branch")?;
        } else {
            write!(f, "branch {}", self.number)?;
        }
        match &self.from {
            BranchOrigin::Beginning => Ok(()),
            BranchOrigin::Volume { generation, .. } => {
                write!(f, ", from the end of generation {generation}")
            }
            BranchOrigin::Backup { at } => write!(f, ", restored from backups, {at}"),
            BranchOrigin::Discarded => f.write_str(", without what there was"),
        }
    }
}

/// A database's data on disk. It is named after the instance that it was made for, outlives it, and
/// is held by one instance at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedVolume {
    /// Its name.
    pub id: InstanceId,
    /// The database.
    pub component: ComponentId,
    /// The generation that it was made for.
    pub generation: u64,
    /// The engine's major version that wrote it.
    pub version: u32,
    /// Whether this is the one that writes went to last: all that was acknowledged is in it.
    pub head: bool,
    /// The number of the branch that it is of.
    #[serde(default)]
    pub branch: u64,
    /// Whether its branch ends in it: writes went to it last before they went to another branch.
    #[serde(default)]
    pub tip: bool,
    /// When writes went on to another volume; none where it is the head, or never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<Timestamp>,
    /// What it takes on disk.
    pub used: Bytes,
}

/// The data of an instance of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedData {
    /// The volume that it holds.
    pub volume: InstanceId,
    /// The number of that volume's branch.
    #[serde(default)]
    pub branch: u64,
    /// What it began with, where that is known.
    #[serde(default)]
    pub origin: Option<DataOrigin>,
    /// What it said of it, the last time that it answered.
    #[serde(default)]
    pub said: Option<Said>,
}

/// What an instance says of its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// When it was asked.
    pub at: Timestamp,
    /// Whether it takes writes.
    pub role: Role,
    /// How far its data goes, in bytes of the engine's log: what a primary has made durable, what
    /// a standby has received. For one that takes the data over from an older major version these
    /// are bytes of *that* one's log, up to which it has confirmed to have all.
    pub position: u64,
    /// Whom it receives from at present, where it is a standby.
    #[serde(default)]
    pub follows: Option<InstanceId>,
    /// Whether each write that its primary has acknowledged, up to its end where that is gone, is
    /// in this one or in another of which the same is said.
    #[serde(default)]
    pub synchronous: bool,
}

/// What an instance does with writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It takes them.
    Primary,
    /// It receives them from a primary, and takes none.
    Standby,
}

impl Role {
    /// The word that stands in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Standby => "standby",
        }
    }
}

/// What the gateway does for a database, measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedGate {
    /// The database.
    pub component: ComponentId,
    /// The instance that clients' questions go to.
    pub primary: Option<InstanceId>,
    /// Since when nothing that a client asked is under way at any instance and nothing new is let
    /// through. `None` while anything is.
    pub settled_since: Option<Timestamp>,
    /// Since when clients have been held, where they are.
    pub held_since: Option<Timestamp>,
    /// When clients that had been held were last let through to the same instance again.
    pub released_at: Option<Timestamp>,
    /// Clients' sessions.
    pub sessions: u32,
    /// Sessions with a question or transaction under way.
    pub busy: u32,
}

/// What a new instance of a database begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataOrigin {
    /// Nothing: a volume is made, with an empty database.
    Empty,
    /// A copy of another instance's data, which it receives from then on.
    Standby {
        /// The instance.
        of: InstanceId,
    },
    /// What another instance, of an older major version of the engine, has: its definitions are made
    /// anew, its rows are copied, and what is written to it from then on is received.
    Upgrade {
        /// The instance.
        of: InstanceId,
    },
    /// A volume that is there and that nobody holds.
    Volume {
        /// Its name.
        volume: InstanceId,
    },
    /// An earlier state, with which a branch is opened.
    Branch {
        /// Which.
        from: BranchOrigin,
    },
}

/// Where below a root the sockets of databases are.
pub const SOCKETS: &str = "run/databases";
/// Where below a root the volumes of databases are.
pub const VOLUMES: &str = "volumes";

/// Where below a root the instances of a database have their sockets: each in a directory of its
/// own, which is named after it. `primary` is a link to that of the one that takes writes.
pub fn sockets(stack: &StackName, database: &ComponentId) -> String {
    format!("{SOCKETS}/{stack}.{}", database.host_name())
}

/// Where below a root the volumes of a database are.
pub fn volumes(stack: &StackName, database: &ComponentId) -> String {
    format!("{VOLUMES}/{stack}.{}", database.host_name())
}
