//! Where the data and the sockets of one database are on disk.
//!
//! `ROOT/volumes/STACK.NAME/` holds a directory for each volume, called after the instance
//! that it was made for, and `head.json`, which says in which of them all is that was ever
//! acknowledged. `ROOT/run/databases/STACK.NAME/` holds a directory for the socket of each
//! instance, and the link `primary` to that of the one that takes writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kiln_database::postgres::{ARCHIVED, PRIMARY};
use kiln_database::{DatabaseEngine, engine};
use kiln_model::data;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::quantity::Timestamp;
use kiln_model::spec::database::Engine;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const HEAD: &str = "head.json";
const ABOUT: &str = "volume.json";
const DATA: &str = "data";
const SETTLED: &str = "settled.json";
/// What a volume's name ends with while it is being removed.
const GOING: &str = ".gone";
/// What the name of a log ends with that is left of a volume.
const LEFT: &str = ".log";

/// The directories of one database.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) volumes: PathBuf,
    pub(super) sockets: PathBuf,
}

/// What is written down about a volume once it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) stack: StackName,
    pub(super) component: ComponentId,
    pub(super) generation: u64,
    pub(super) engine: Engine,
    pub(super) version: u32,
    /// The number of its branch.
    #[serde(default)]
    pub(super) branch: u64,
    /// What it was made of, where that is the data of an older major version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upgrade: Option<Upgraded>,
}

/// The data of an older major version of which a volume was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upgraded {
    /// The database that goes over.
    pub(super) database: String,
    /// What told the definitions apart from others.
    pub(super) definitions: String,
}

/// Which volume writes went to last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) volume: InstanceId,
    /// The one before, which is kept a while in case that somebody misses something.
    pub(super) previous: Option<InstanceId>,
    /// Those in which other branches end. They are kept.
    #[serde(default)]
    pub(super) tips: BTreeSet<InstanceId>,
    /// When writes went on from each that is kept.
    #[serde(default)]
    pub(super) left_at: BTreeMap<InstanceId, Timestamp>,
}

impl Head {
    /// Whether a volume stays without anybody who holds it.
    pub(super) fn keeps(&self, volume: &InstanceId) -> bool {
        self.volume == *volume
            || self.previous.as_ref() == Some(volume)
            || self.tips.contains(volume)
    }

    /// The head after it: `volume`, in the same branch as this one or in another.
    fn followed_by(mut self, volume: &InstanceId, same_branch: bool, now: Timestamp) -> Self {
        let before = std::mem::replace(&mut self.volume, volume.clone());
        self.left_at.insert(before.clone(), now);
        if !same_branch {
            self.tips.insert(before.clone());
        }
        self.tips.remove(volume);
        self.left_at.remove(volume);
        self.previous = Some(before);
        let kept: BTreeSet<_> = self.left_at.keys().filter(|id| self.keeps(id)).cloned().collect();
        self.left_at.retain(|id, _| kept.contains(id));
        self
    }
}

/// Makes a directory that everybody may pass through, whatever the umask is: the one above is root's.
fn passable(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

impl Place {
    pub(super) fn of(root: &Path, stack: &StackName, component: &ComponentId) -> Self {
        Self {
            volumes: root.join(data::volumes(stack, component)),
            sockets: root.join(data::sockets(stack, component)),
        }
    }

    /// Those of all databases of a stack that have a volume.
    pub(super) fn all(root: &Path, stack: &StackName) -> io::Result<Vec<(ComponentId, Self)>> {
        let mut all = Vec::new();
        for entry in entries(&root.join(data::VOLUMES))? {
            let first = entries(&entry)?.into_iter().find_map(|volume| about(&volume));
            if let Some(about) = first.filter(|about| about.stack == *stack) {
                let place = Self::of(root, stack, &about.component);
                all.push((about.component, place));
            }
        }
        Ok(all)
    }

    /// Those in which there is something of an instance.
    pub(super) fn with(root: &Path, instance: &InstanceId) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for sockets in entries(&root.join(data::SOCKETS))? {
            let Some(name) = sockets.file_name() else { continue };
            let place = Self { volumes: root.join(data::VOLUMES).join(name), sockets };
            if place.socket(instance).exists() || place.data(instance).exists() {
                all.push(place);
            }
        }
        Ok(all)
    }

    /// Removes the directories that all instances share, where there is no instance and no volume.
    pub(super) fn remove_if_unused(&self) -> io::Result<()> {
        let own = |entry: &PathBuf| entry.is_symlink() || entry.ends_with(ARCHIVED);
        if entries(&self.sockets)?.iter().all(own) {
            absent(fs::remove_dir_all(&self.sockets))?;
        }
        if self.head()?.is_none() && entries(&self.volumes)?.is_empty() {
            absent(fs::remove_dir(&self.volumes))?;
        }
        Ok(())
    }

    /// Removes all volumes for good. What is gone first is the head, so that what an interruption
    /// leaves is no data of anybody.
    pub(super) fn remove_all(&self) -> io::Result<()> {
        absent(fs::remove_file(self.volumes.join(HEAD)))?;
        for volume in self.list()? {
            self.remove_volume(&volume)?;
        }
        absent(fs::remove_dir_all(&self.volumes))?;
        absent(fs::remove_dir_all(&self.sockets))
    }

    /// Makes the directories that all instances share; nobody but root gets to them from outside.
    pub(super) fn make(&self) -> io::Result<()> {
        for directory in [&self.volumes, &self.sockets] {
            if let Some(parent) = directory.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.volumes)?;
        passable(&self.sockets)
    }

    /// The data directory of a volume.
    pub(super) fn data(&self, volume: &InstanceId) -> PathBuf {
        self.volumes.join(volume.as_str()).join(DATA)
    }

    /// Makes a volume without anything in it.
    pub(super) fn make_volume(&self, volume: &InstanceId) -> io::Result<()> {
        let directory = self.volumes.join(volume.as_str());
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        DirBuilder::new().mode(0o700).create(self.data(volume))
    }

    /// Writes down that a volume is whole, when all of it is on the disk.
    pub(super) fn complete(&self, volume: &InstanceId, about: &About) -> io::Result<()> {
        write(&self.volumes.join(volume.as_str()).join(ABOUT), about)?;
        sync(&self.volumes)
    }

    /// Whether a volume was whole once; it is an error where that can't be seen.
    pub(super) fn is_whole(&self, volume: &InstanceId) -> io::Result<bool> {
        match fs::symlink_metadata(self.volumes.join(volume.as_str()).join(ABOUT)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn about(&self, volume: &InstanceId) -> Option<About> {
        about(&self.volumes.join(volume.as_str()))
    }

    /// The line of a volume's data: which archive its log goes to. It is called after the cluster, and
    /// the branch where that is not the first.
    pub(super) fn line(
        &self,
        engine: &dyn DatabaseEngine,
        volume: &InstanceId,
    ) -> io::Result<String> {
        let system = engine.system(&self.data(volume))?;
        match self.branch(volume) {
            0 => Ok(system.to_string()),
            branch => Ok(format!("{system}-{branch}")),
        }
    }

    /// Where it stands which files of the log of a line are archived.
    pub(super) fn archived(&self, line: &str) -> PathBuf {
        self.sockets.join(ARCHIVED).join(line)
    }

    /// What is left of volumes that were removed before all of their log was archived: the line and
    /// the cluster of each, and where it is, as in a data directory.
    pub(super) fn left(&self) -> io::Result<Vec<(String, u64, PathBuf)>> {
        let left = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(LEFT)?.to_owned();
            let mut parts = name.rsplitn(3, '.');
            let (system, line) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
            Some((line, system, path))
        };
        Ok(entries(&self.volumes)?.into_iter().filter_map(left).collect())
    }

    /// Removes a volume for good; what of its log is not archived yet is put aside first.
    pub(super) fn remove_volume(&self, volume: &InstanceId) -> io::Result<()> {
        // One that is half made has nothing that was ever acknowledged.
        if let Some(about) = self.about(volume) {
            self.put_log_aside(engine(about.engine), volume)?;
        }
        self.take_away(volume)
    }

    fn put_log_aside(&self, engine: &dyn DatabaseEngine, volume: &InstanceId) -> io::Result<()> {
        let data = self.data(volume);
        let known = self.line(engine, volume).and_then(|line| Ok((line, engine.system(&data)?)));
        let (Ok((line, system)), Ok(log)) = (known, engine.log(&data)) else { return Ok(()) };
        let marks = self.archived(&line);
        if log.waiting.iter().all(|name| marks.join(name).exists()) {
            return Ok(());
        }
        let left = self.volumes.join(format!("{volume}.{line}.{system}{LEFT}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&left)?;
        absent(fs::rename(data.join("pg_wal"), left.join("pg_wal")))?;
        sync(&self.volumes)
    }

    /// Writes down that a volume that takes data over has all that goes over before the writes do:
    /// what told its views from refreshed ones at that time.
    pub(super) fn settle(
        &self,
        volume: &InstanceId,
        views: &BTreeMap<String, String>,
    ) -> io::Result<()> {
        write(&self.volumes.join(volume.as_str()).join(SETTLED), views)
    }

    /// What [`settle`](Self::settle) wrote down, if it has.
    pub(super) fn settled(&self, volume: &InstanceId) -> Option<BTreeMap<String, String>> {
        read(&self.volumes.join(volume.as_str()).join(SETTLED)).ok().flatten()
    }

    /// The volumes that there are, in order; those that are not whole, too.
    pub(super) fn list(&self) -> io::Result<Vec<InstanceId>> {
        let name = |path: PathBuf| path.file_name()?.to_str()?.parse().ok();
        let directories = entries(&self.volumes)?.into_iter().filter(|path| path.is_dir());
        let mut all: Vec<InstanceId> = directories.filter_map(name).collect();
        all.sort();
        Ok(all)
    }

    fn take_away(&self, volume: &InstanceId) -> io::Result<()> {
        let path = self.volumes.join(volume.as_str());
        let going = self.volumes.join(format!("{volume}{GOING}"));
        // At once, so that half of it is never taken for whole.
        match fs::rename(&path, &going) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
        absent(fs::remove_dir_all(going))
    }

    pub(super) fn head(&self) -> io::Result<Option<Head>> {
        read(&self.volumes.join(HEAD))
    }

    /// Says durably that writes go to this volume from now on.
    pub(super) fn set_head(&self, volume: &InstanceId, now: Timestamp) -> io::Result<()> {
        let head = match self.head()? {
            Some(head) if head.volume == *volume => return Ok(()),
            Some(head) => {
                let same_branch = self.branch(&head.volume) == self.branch(volume);
                head.followed_by(volume, same_branch, now)
            }
            None => Head {
                volume: volume.clone(),
                previous: None,
                tips: BTreeSet::new(),
                left_at: BTreeMap::new(),
            },
        };
        write(&self.volumes.join(HEAD), &head)
    }

    /// The branch of a volume; the first where nothing is written down.
    pub(super) fn branch(&self, volume: &InstanceId) -> u64 {
        self.about(volume).map_or(0, |about| about.branch)
    }

    /// The directory of an instance's socket.
    pub(super) fn socket(&self, instance: &InstanceId) -> PathBuf {
        self.sockets.join(instance.as_str())
    }

    pub(super) fn make_socket(&self, instance: &InstanceId) -> io::Result<()> {
        passable(&self.socket(instance))
    }

    pub(super) fn remove_socket(&self, instance: &InstanceId) -> io::Result<()> {
        absent(fs::remove_dir_all(self.socket(instance)))
    }

    /// Whom standbys connect to.
    pub(super) fn primary(&self) -> Option<InstanceId> {
        fs::read_link(self.sockets.join(PRIMARY)).ok()?.to_str()?.parse().ok()
    }

    /// Has standbys connect to this instance.
    pub(super) fn set_primary(&self, instance: &InstanceId) -> io::Result<()> {
        let unfinished = self.sockets.join(format!(".{PRIMARY}"));
        absent(fs::remove_file(&unfinished))?;
        symlink(instance.as_str(), &unfinished)?;
        fs::rename(unfinished, self.sockets.join(PRIMARY))
    }
}

fn about(volume: &Path) -> Option<About> {
    read(&volume.join(ABOUT)).ok().flatten()
}

/// What is in a directory; nothing where it is none.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
    }
}

/// Replaces a file; when this returns it is on the disk.
fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    #[test]
    fn the_head_moves_and_the_one_before_is_known() {
        let root = tempfile::tempdir().unwrap();
        let (stack, component) = ("shop".parse().unwrap(), "database.orders".parse().unwrap());
        let place = Place::of(root.path(), &stack, &component);
        place.make().unwrap();
        assert_eq!(place.head().unwrap(), None);
        let (first, second) = (id("database-orders-1"), id("database-orders-2"));
        place.make_volume(&first).unwrap();
        assert_eq!(Place::all(root.path(), &stack).unwrap().len(), 0, "it is not whole");
        let about = |branch| About {
            stack: stack.clone(),
            component: component.clone(),
            generation: 3,
            engine: Engine::Postgres,
            version: 15,
            branch,
            upgrade: None,
        };
        place.complete(&first, &about(0)).unwrap();
        assert_eq!(place.about(&first), Some(about(0)));
        assert_eq!(Place::all(root.path(), &stack).unwrap().len(), 1);
        place.set_head(&first, Timestamp(1)).unwrap();
        place.set_head(&second, Timestamp(2)).unwrap();
        place.set_head(&second, Timestamp(3)).unwrap();
        let head = place.head().unwrap().unwrap();
        assert_eq!((&head.volume, head.previous.as_ref()), (&second, Some(&first)));
        assert_eq!(head.left_at, [(first.clone(), Timestamp(2))].into());
        assert_eq!(head.tips, BTreeSet::new());
        // Another branch: the one before ends where it was left, and is kept.
        let (third, fourth) = (id("database-orders-3"), id("database-orders-4"));
        for other in [&third, &fourth] {
            place.make_volume(other).unwrap();
            place.complete(other, &about(7)).unwrap();
            place.set_head(other, Timestamp(4)).unwrap();
        }
        let head = place.head().unwrap().unwrap();
        assert_eq!(head.tips, [second.clone()].into());
        assert!([&second, &third, &fourth].iter().all(|id| head.keeps(id)) && !head.keeps(&first));
        // And back: that of the other branch is kept now.
        place.set_head(&second, Timestamp(5)).unwrap();
        let head = place.head().unwrap().unwrap();
        assert_eq!(head.tips, [fourth.clone()].into());
        for other in [third, fourth] {
            place.remove_volume(&other).unwrap();
        }
        place.set_primary(&first).unwrap();
        place.set_primary(&second).unwrap();
        assert_eq!(place.primary(), Some(second));
        assert_eq!(place.list().unwrap(), std::slice::from_ref(&first));
        place.remove_volume(&first).unwrap();
        place.remove_volume(&first).unwrap();
        assert_eq!(place.list().unwrap(), []);
    }
}
