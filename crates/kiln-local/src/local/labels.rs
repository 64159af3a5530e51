//! What is kept about instances and networks beside them, so that the next daemon finds them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::plan::{InstanceCreation, NetworkCreation};
use kiln_model::quantity::Timestamp;
use kiln_model::spec::network::NetworkIdentity;
use kiln_model::spec::server::{Connection, Stop};
use serde::{Deserialize, Serialize};

use super::database::DataLabels;
use crate::instance::record;
use crate::launcher::protocol::Labels;
use crate::network::NetworkSpec;

/// The key under which [`InstanceLabels`] stand in an instance's record.
const KEY: &str = "kiln";

/// What an instance is of. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InstanceLabels {
    pub(super) stack: StackName,
    pub(super) component: ComponentId,
    pub(super) digest: Digest,
    pub(super) generation: u64,
    pub(super) network: InstanceId,
    pub(super) connects: Vec<Connection>,
    pub(super) stop: Stop,
    /// The secrets that it was given; none where an older daemon did not write that down.
    #[serde(default)]
    pub(super) secrets: Option<BTreeSet<ComponentId>>,
    /// What else it is, where it is a database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<DataLabels>,
}

impl InstanceLabels {
    pub(super) fn of(creation: &InstanceCreation) -> Self {
        let identity = &creation.server.identity;
        Self {
            stack: creation.stack.clone(),
            component: creation.component.clone(),
            digest: creation.digest,
            generation: creation.generation,
            network: creation.network.clone(),
            connects: identity.connects.clone(),
            stop: identity.stop.clone(),
            secrets: Some(creation.server.secrets().map(|secret| secret.id.clone()).collect()),
            data: DataLabels::of(creation),
        }
    }

    /// In the launcher's form.
    pub(super) fn to_labels(&self) -> Result<Labels, serde_json::Error> {
        Ok(Labels {
            stack: self.stack.to_string(),
            component: self.component.to_string(),
            digest: self.digest.to_string(),
            generation: self.generation,
            more: [(KEY.to_owned(), serde_json::to_string(self)?)].into(),
        })
    }

    /// From the launcher's form; `None` where they were not written by this program.
    pub(super) fn from_labels(labels: &Labels) -> Option<Self> {
        serde_json::from_str(labels.more.get(KEY)?).ok()
    }
}

/// What a network instance is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetworkLabels {
    pub(super) id: InstanceId,
    pub(super) stack: StackName,
    pub(super) component: ComponentId,
    pub(super) digest: Digest,
    pub(super) generation: u64,
    pub(super) identity: NetworkIdentity,
}

impl NetworkLabels {
    pub(super) fn of(creation: &NetworkCreation) -> Self {
        Self {
            id: creation.id.clone(),
            stack: creation.stack.clone(),
            component: creation.component.clone(),
            digest: creation.digest,
            generation: creation.generation,
            identity: creation.identity.clone(),
        }
    }

    /// What the network is to be.
    pub(super) fn spec(&self) -> NetworkSpec {
        NetworkSpec {
            id: self.id.to_string(),
            cidr: self.identity.cidr,
            egress: self.identity.egress.clone(),
            label: self.component.to_string().chars().take(80).collect(),
        }
    }

    fn path(root: &Path, id: &InstanceId) -> PathBuf {
        root.join("run/networks").join(format!("{id}.json"))
    }

    pub(super) fn write(&self, root: &Path) -> io::Result<()> {
        write(&Self::path(root, &self.id), &serde_json::to_vec(self)?)
    }

    /// Whether there is a record of a network.
    pub(super) fn exist(root: &Path, id: &InstanceId) -> bool {
        Self::path(root, id).exists()
    }

    pub(super) fn remove(root: &Path, id: &InstanceId) -> io::Result<()> {
        remove(&Self::path(root, id))
    }

    /// Those of all networks, by id. One that can't be read is left out: what it belongs to is
    /// then a stray.
    pub(super) fn list(root: &Path) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(root.join("run/networks"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Ok(text) = fs::read(&path)
                && let Ok(labels) = serde_json::from_slice::<Self>(&text)
            {
                all.push(labels);
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }
}

fn started_path(root: &Path, instance: &str) -> PathBuf {
    record::directory(root, instance).join("started")
}

/// Writes down that an instance has started: what it showed for that may be gone later.
pub(super) fn mark_started(root: &Path, instance: &str) -> io::Result<()> {
    fs::write(started_path(root, instance), b"")
}

/// Whether it is written down that an instance has started.
pub(super) fn has_started(root: &Path, instance: &str) -> bool {
    started_path(root, instance).exists()
}

fn draining_path(root: &Path, instance: &str) -> PathBuf {
    record::directory(root, instance).join("draining")
}

/// Writes down that an instance has been draining since `since`; a first note stays.
pub(super) fn mark_draining(root: &Path, instance: &str, since: Timestamp) -> io::Result<()> {
    if draining_since(root, instance).is_some() {
        return Ok(());
    }
    write(&draining_path(root, instance), since.0.to_string().as_bytes())
}

/// Since when an instance has been draining.
pub(super) fn draining_since(root: &Path, instance: &str) -> Option<Timestamp> {
    let text = fs::read_to_string(draining_path(root, instance)).ok()?;
    text.trim().parse().ok().map(Timestamp)
}

/// A reader sees the whole file or none.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
