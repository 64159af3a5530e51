//! What is watched: instances and networks.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use kiln_model::digest::Digest;
use kiln_model::drift::{Aspect, Drift};
use kiln_model::name::StackName;

use super::ears::{InstanceEars, NetworkEars};
use super::{Guard, lock};
use crate::guard::Subject;
use crate::instance::baseline::Baseline;
use crate::instance::record::{self, Record};
use crate::local::labels::NetworkLabels;
use crate::local::now;
use crate::network::Networks;

/// How long a start may take until the baseline is written down: longer than a launcher waits.
const START: Duration = Duration::from_secs(15);

/// An instance that is watched.
pub(super) struct Watched {
    pub(super) id: String,
    pub(super) stack: StackName,
    pub(super) subject: Subject,
    drift: Mutex<Vec<Drift>>,
    /// What is heard of it, once it is listened to. It goes with this: it keeps the namespace of the
    /// instance's network.
    pub(super) ears: Mutex<Option<InstanceEars>>,
}

impl Watched {
    /// None while it is being started.
    pub(super) fn open(guard: &Guard, record: &Record, stack: &StackName) -> Option<Self> {
        let id = &record.instance;
        let mut drift = read(&guard.root, id);
        let baseline = Baseline::read(&guard.root, id).unwrap_or_default();
        if baseline.is_none() && record.baseline {
            let age = now().0.saturating_sub(record.started_at_ms);
            if Duration::from_millis(age) < START {
                return None;
            }
            let expected = "a baseline that was taken at its start";
            drift.push(Drift::new(Aspect::Record, expected, "none"));
        }
        Some(Self {
            id: id.clone(),
            stack: stack.clone(),
            subject: Subject::new(record, baseline, &guard.cgroups, &guard.membership),
            drift: Mutex::new(drift),
            ears: Mutex::default(),
        })
    }

    /// In what it was found to differ.
    pub(super) fn drift(&self) -> Vec<Drift> {
        lock(&self.drift).clone()
    }

    /// Whether nothing was found to differ.
    pub(super) fn is_sound(&self) -> bool {
        lock(&self.drift).is_empty()
    }

    /// Keeps what was found first; whether it is the first.
    pub(super) fn condemn(&self, found: Vec<Drift>) -> bool {
        let mut drift = lock(&self.drift);
        if !drift.is_empty() {
            return false;
        }
        eprintln!("kiln: {} has drifted: {} is {}", self.id, found[0].what, found[0].found);
        *drift = found;
        true
    }

    /// Writes down what was found, once, so that a later daemon knows.
    pub(super) fn write_down(&self, root: &Path) {
        let written = serde_json::to_vec(&self.drift()).map_err(Into::into);
        let written = written.and_then(|text| fs::write(drift_path(root, &self.id), text));
        if let Err(error) = written {
            eprintln!("kiln: the drift of {} is not written down: {error}", self.id);
        }
    }
}

/// What was written down of an instance's drift.
pub(super) fn read(root: &Path, instance: &str) -> Vec<Drift> {
    let known = fs::read(drift_path(root, instance)).ok();
    known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn drift_path(root: &Path, instance: &str) -> std::path::PathBuf {
    record::directory(root, instance).join("drift.json")
}

/// A network that is watched.
pub(super) struct Net {
    pub(super) labels: NetworkLabels,
    pub(super) ears: Mutex<Option<NetworkEars>>,
    /// What was last measured of where it leads.
    leads: Mutex<Option<Digest>>,
}

impl Net {
    pub(super) fn new(labels: NetworkLabels) -> Self {
        Self { labels, ears: Mutex::default(), leads: Mutex::default() }
    }

    /// Whether it is not as it was made, or leads elsewhere than when it was last looked at.
    pub(super) fn has_changed(&self, networks: &Networks) -> bool {
        let Ok(Some(network)) = networks.observe_one(self.labels.id.as_str()) else { return false };
        let services = Digest::of(format!("{:?}", network.services).as_bytes());
        let before = lock(&self.leads).replace(services);
        before.is_some_and(|before| before != services)
            || !network.differences(&self.labels.spec()).is_empty()
    }
}
