//! What a target is told of databases that are to be backed up, what it can be asked, and what it
//! answers.

use std::path::PathBuf;

use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::plan::{DataCreation, InstanceCreation};
use kiln_model::spec::backup::Backup;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A database that is to be backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// An instance of it, as throw-away instances are made for copies and proofs.
    pub creation: InstanceCreation,
    /// How it is backed up.
    pub backup: Backup,
}

/// The databases of a generation that are to be backed up.
pub fn wanted(generation: &Generation) -> Vec<Wanted> {
    let databases = generation.content.databases();
    databases
        .filter_map(|(id, component, database)| {
            let backup = database.policy.backup.clone()?;
            let network = &database.identity.network.id;
            let network = generation.content.components.get(network)?;
            let kiln_model::spec::Body::Network(network) = &network.spec.body else { return None };
            // Throw-away instances have neither a network nor a volume of a name.
            let none: InstanceId = "none-000000000000".parse().ok()?;
            let origin = kiln_model::data::DataOrigin::Empty;
            Some(Wanted {
                creation: InstanceCreation {
                    id: none.clone(),
                    stack: generation.stack.clone(),
                    component: id.clone(),
                    digest: component.digest,
                    generation: generation.number,
                    network: none,
                    network_identity: network.identity.clone(),
                    address: database.policy.address,
                    image: *generation.content.images.get(&database.identity.image.id)?,
                    demands: generation.content.demands.clone(),
                    server: database.server(),
                    data: Some(DataCreation {
                        identity: database.identity.clone(),
                        origin,
                        branch: 0,
                    }),
                },
                backup,
            })
        })
        .collect()
}

/// What can be asked of a database's backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Ask {
    /// What there is.
    List,
    /// A copy of the data, now.
    Make,
    /// To restore a copy, the newest where none is named, into a throw-away volume, and to read all that
    /// is stored.
    Verify {
        /// The copy.
        backup: Option<String>,
    },
    /// To bring the data of a moment into a directory.
    Restore {
        /// `latest`, an instant, or the name of a copy.
        at: String,
        /// An empty directory, or one that is not there yet.
        into: PathBuf,
    },
}

/// The backups of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "backups")]
pub struct Backups {
    /// The database.
    #[schemars(with = "String")]
    pub component: ComponentId,
    /// Where they are.
    pub place: String,
    /// Whether they are encrypted.
    pub encrypted: bool,
    /// How the log of changes is archived.
    pub archive: ArchiveState,
    /// What can be restored: any moment from the first to the second. Null where nothing can.
    pub restorable: Option<Span>,
    /// The copies, the oldest first.
    pub backups: Vec<BackupView>,
    /// What is wrong, in words.
    pub faults: Vec<String>,
}

/// How the log of changes is archived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchiveState {
    /// Files of the log that wait to be archived.
    pub waiting: u64,
    /// Since when the oldest of them has been whole, RFC 3339.
    pub waiting_since: Option<String>,
    /// The last file that was archived since the daemon began.
    pub last: Option<String>,
    /// Why the next one is not archived, where something is wrong.
    pub trouble: Option<String>,
}

/// A span of time, each end RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Span {
    /// Its first instant.
    pub from: String,
    /// Its last instant.
    pub to: String,
}

/// A copy of a database's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "backup")]
pub struct BackupView {
    /// Its name.
    pub id: String,
    /// The line of the data that it is of: it changes where a moment was restored.
    pub line: String,
    /// When it began, RFC 3339.
    pub began_at: String,
    /// When it was whole: it restores moments from then on.
    pub ended_at: String,
    /// Bytes, as they are stored.
    pub size: u64,
    /// From where to where it needs the log, as positions of the engine.
    pub log: Span,
    /// `unproved`, `proved` or `damaged`.
    pub state: String,
    /// When it was last restored to see, RFC 3339.
    pub proved_at: Option<String>,
    /// What was proved of it.
    pub proved: Vec<String>,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

/// What came of looking at all that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "verification of backups")]
pub struct Verification {
    /// The copy that was restored.
    pub backup: String,
    /// What was proved of it.
    pub proved: Vec<String>,
    /// Files of the log that were read.
    pub log_files: u64,
    /// What is wrong, each with the name of what it is wrong with.
    pub faults: Vec<String>,
}

/// Data that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "restored data")]
pub struct Restored {
    /// The copy that it began with.
    pub backup: String,
    /// The line of the data.
    pub line: String,
    /// Where it is.
    pub into: PathBuf,
    /// What was proved of it.
    pub proved: Vec<String>,
    /// When it was whole, RFC 3339.
    pub at: String,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Answer {
    /// To [`Ask::List`].
    List(Backups),
    /// To [`Ask::Make`].
    Made(BackupView),
    /// To [`Ask::Verify`].
    Verified(Verification),
    /// To [`Ask::Restore`].
    Restored(Restored),
}
