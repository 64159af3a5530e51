//! How a database is backed up.

use serde::{Deserialize, Serialize};

use crate::name::ComponentId;
use crate::quantity::Millis;

/// From one copy of a database's data to the next, where nothing is said.
pub const EVERY: Millis = Millis::seconds(24 * 3600);
/// For how long any moment can be restored, where nothing is said.
pub const KEEP: Millis = Millis::seconds(7 * 24 * 3600);

/// How a database is backed up: its log of changes at all times, and now and then a copy of its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// From one copy to the next.
    pub every: Millis,
    /// How far back any moment can be restored.
    pub keep: Millis,
    /// Where backups go.
    #[serde(default, skip_serializing_if = "Destination::is_default")]
    pub to: Destination,
    /// The secret that is the age identity by which what is stored can be read; not encrypted where
    /// there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<ComponentId>,
}

/// Where backups go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// A directory of the database's own, below the root.
    #[default]
    Root,
    /// This directory of the machine, an absolute path.
    Directory(String),
    /// A bucket that is reached by the protocol of S3.
    S3(Bucket),
}

/// A bucket that is reached by the protocol of S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name.
    pub bucket: String,
    /// What the names of all objects begin with; without a slash at either end, perhaps empty.
    pub prefix: String,
    /// The URL of the service, without the bucket.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The secret that is the id of the key.
    pub access_key: ComponentId,
    /// The secret that is the key.
    pub secret_key: ComponentId,
}

impl Destination {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::Root
    }
}

impl Backup {
    /// The secrets that it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &ComponentId> {
        let keys = match &self.to {
            Destination::S3(bucket) => vec![&bucket.access_key, &bucket.secret_key],
            Destination::Root | Destination::Directory(_) => Vec::new(),
        };
        keys.into_iter().chain(&self.encrypt)
    }
}
