//! Quarantine: what is kept of an instance that has drifted, before it is gone.
//!
//! It is out of rotation when it comes here. It is taken off its network, frozen, and what the
//! kernel says of it is saved to `ROOT/incidents/INSTANCE`, a directory for nobody but root. Whatever
//! stands in the way of that is noted there, or in the daemon's log, and does not keep the instance
//! from being ended.

mod bundle;
mod processes;
mod secrets;
mod space;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use kiln_model::drift::Drift;
use kiln_model::name::InstanceId;
use serde::{Deserialize, Serialize};

use super::labels::InstanceLabels;
use super::{Machine, now};
use crate::instance::record::Record;

use bundle::Bundle;
use secrets::Secrets;

/// Bundles that are kept of one component.
const KEPT: usize = 20;

/// A bundle that is younger does not make room for another: whoever drowns a first deed in many
/// others does not drown its evidence.
const FRESH: Duration = Duration::from_secs(3600);

/// How long a group may take to freeze.
const FREEZE: Duration = Duration::from_millis(500);

/// How long it may take to save everything.
const SAVE: Duration = Duration::from_secs(10);

/// Lines of the log that are saved.
const LINES: usize = 500;

/// What a bundle is of: its `incident.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The instance; also the name of the bundle's directory.
    pub instance: String,
    /// The stack.
    pub stack: String,
    /// The component.
    pub component: String,
    /// The digest that it was made from.
    pub digest: String,
    /// The generation that it was made for.
    pub generation: u64,
    /// When it was saved, RFC 3339 in UTC.
    pub saved_at: String,
    /// In what it differed.
    pub drift: Vec<Drift>,
    /// Whether it was frozen while it was saved.
    pub frozen: bool,
    /// The other files of the bundle and their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// What is not in the bundle, and why, in words.
    pub omitted: Vec<String>,
}

/// Where the bundles of a root are.
pub fn directory(root: &Path) -> PathBuf {
    root.join("incidents")
}

/// The bundles of a root, the oldest first. What can't be read is left out.
pub fn list(root: &Path) -> Vec<Incident> {
    let Ok(entries) = fs::read_dir(directory(root)) else { return Vec::new() };
    let read = |path: PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
    let found = entries.flatten().filter(|entry| !is_unfinished(&entry.file_name()));
    let mut found: Vec<Incident> =
        found.filter_map(|entry| read(entry.path().join("incident.json"))).collect();
    found.sort_by(|a, b| (&a.saved_at, &a.instance).cmp(&(&b.saved_at, &b.instance)));
    found
}

fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

impl Machine {
    /// Freezes an instance and saves what it is. It is off its network already.
    pub(super) fn keep_evidence(
        &self,
        id: &InstanceId,
        record: &Record,
        labels: &InstanceLabels,
        drift: Vec<Drift>,
    ) {
        let group = self.cgroups.group(id.as_str());
        let frozen = group.freeze(FREEZE);
        if let Err(error) = self.save(id, record, labels, drift, frozen) {
            eprintln!("kiln: the evidence of {id} is not kept: {error}");
        }
        // What is killed while it is frozen ends with the thaw, and runs no more.
        group.kill();
        group.thaw();
    }

    fn save(
        &self,
        id: &InstanceId,
        record: &Record,
        labels: &InstanceLabels,
        drift: Vec<Drift>,
        frozen: bool,
    ) -> io::Result<()> {
        let directory = directory(&self.root);
        if directory.join(id.as_str()).exists() {
            // An end that is tried again has been saved the first time.
            return Ok(());
        }
        make_room(&directory, id.as_str(), SystemTime::now())?;
        let mut bundle = Bundle::begin(&directory, id.as_str(), Instant::now() + SAVE)?;
        let secrets = Secrets::of(labels, &*self.secrets);
        if !frozen {
            bundle.omit("it could not be frozen: what is here is of different moments");
        }
        let pids = processes::of(&self.cgroups.group(id.as_str()), record.pid);
        processes::save(&mut bundle, &pids, &secrets)?;
        self.save_surroundings(&mut bundle, id, record.pid)?;
        self.save_log(&mut bundle, id, &secrets)?;
        // Last, for it is the largest.
        space::save(&mut bundle, record.pid)?;
        bundle.finish(Incident {
            instance: id.to_string(),
            stack: labels.stack.to_string(),
            component: labels.component.to_string(),
            digest: labels.digest.to_string(),
            generation: labels.generation,
            saved_at: now().to_string(),
            drift,
            frozen,
            files: Vec::new(),
            omitted: Vec::new(),
        })
    }

    /// Mounts, sockets, and what its control groups say.
    fn save_surroundings(&self, bundle: &mut Bundle, id: &InstanceId, pid: i32) -> io::Result<()> {
        bundle.copy("mounts", &PathBuf::from(format!("/proc/{pid}/mountinfo")))?;
        for kind in ["tcp", "tcp6", "udp", "udp6", "unix", "raw", "packet"] {
            let from = PathBuf::from(format!("/proc/{pid}/net/{kind}"));
            bundle.copy(&format!("sockets/{kind}"), &from)?;
        }
        for directory in self.cgroups.group(id.as_str()).directories() {
            // Such as `/sys/fs/cgroup/memory/kiln-…/web-1`: the hierarchy's name tells them apart.
            let hierarchy = directory.parent().and_then(Path::parent).and_then(Path::file_name);
            let hierarchy = hierarchy.unwrap_or_default().to_string_lossy().into_owned();
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // One that only takes writes, or waits, says nothing.
                if let Ok(text) = fs::read(entry.path()) {
                    bundle.write(&format!("cgroup/{hierarchy}/{name}"), &text)?;
                }
            }
        }
        Ok(())
    }

    fn save_log(&self, bundle: &mut Bundle, id: &InstanceId, secrets: &Secrets) -> io::Result<()> {
        let lines = crate::logs::tail(&crate::logs::directory(&self.root, id.as_str()), LINES)?;
        let text = lines.iter().fold(String::new(), |text, line| text + &line.text + "\n");
        bundle.write("log", secrets.hide(&text).as_bytes())
    }
}

/// Makes room for one more bundle of a component, where there may be one.
fn make_room(directory: &Path, instance: &str, now: SystemTime) -> io::Result<()> {
    let component = |id: &str| id.rsplit_once('-').map(|(name, _)| name.to_owned());
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in entries.flatten() {
        if is_unfinished(&entry.file_name()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if component(&name) == component(instance) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    for (made, path) in &found[..(found.len() + 1).saturating_sub(KEPT)] {
        if now.duration_since(*made).unwrap_or_default() < FRESH {
            let cause = format!("there are {KEPT} bundles of its component of the last hour");
            return Err(io::Error::other(cause));
        }
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_bundles_make_room_and_fresh_ones_do_not() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..KEPT {
            fs::create_dir(root.path().join(format!("web-{n:04}"))).unwrap();
        }
        fs::create_dir(root.path().join("api-0001")).unwrap();
        fs::create_dir(root.path().join(".web-ffff")).unwrap();
        let now = SystemTime::now();
        let count = || fs::read_dir(root.path()).unwrap().count();
        assert!(make_room(root.path(), "web-abcd", now).is_err(), "all are of this hour");
        assert!(make_room(root.path(), "api-abcd", now).is_ok(), "each component has its own");
        assert_eq!(count(), KEPT + 2);
        let later = now + FRESH + Duration::from_secs(1);
        make_room(root.path(), "web-abcd", later).unwrap();
        assert_eq!(count(), KEPT + 1, "the oldest has gone");
        assert!(root.path().join(".web-ffff").exists(), "what is being written is no bundle");
    }
}
