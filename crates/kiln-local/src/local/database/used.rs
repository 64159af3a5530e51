//! What volumes take on disk, measured aside from everything else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_engine::TargetError;
use kiln_model::name::InstanceId;
use kiln_model::quantity::Bytes;

use super::place::Place;
use super::{Databases, lock};

/// How old a figure may be.
const AGE: Duration = Duration::from_secs(5);
/// What `stat(2)` counts in.
const BLOCK: u64 = 512;

/// What must be free beside the size of a copy: the one that is copied goes on writing its log.
const SPARE: u64 = 64 << 20;

/// The last figures, by directory.
#[derive(Debug, Default, Clone)]
pub(super) struct Used(Arc<Mutex<BTreeMap<PathBuf, Figure>>>);

#[derive(Debug, Clone, Copy)]
struct Figure {
    bytes: u64,
    at: Instant,
    under_way: bool,
}

impl Used {
    /// What a directory took when it was last measured; it is measured anew, by and by, where that
    /// was long ago.
    pub(super) fn of(&self, directory: &Path) -> Bytes {
        let mut figures = lock(&self.0);
        let known = figures.get(directory).copied();
        if known.is_none_or(|figure| !figure.under_way && figure.at.elapsed() >= AGE) {
            let bytes = known.map_or(0, |figure| figure.bytes);
            let figure = Figure { bytes, at: Instant::now(), under_way: true };
            figures.insert(directory.to_owned(), figure);
            self.measure(directory.to_owned());
        }
        Bytes(known.map_or(0, |figure| figure.bytes))
    }

    fn measure(&self, directory: PathBuf) {
        let figures = self.0.clone();
        let work = move || {
            let bytes = size(&directory);
            let mut figures = lock(&figures);
            // What is not asked about any more is gone.
            figures.retain(|_, figure| figure.at.elapsed() < AGE * 20);
            let figure = Figure { bytes, at: Instant::now(), under_way: false };
            figures.insert(directory, figure);
        };
        let started = std::thread::Builder::new().name("volume-sizes".to_owned()).spawn(work);
        if let Err(error) = started {
            eprintln!("kiln: the size of a volume is not measured: {error}");
        }
    }
}

impl Databases {
    /// Refuses a copy that the disk has no room for: it would fill the disk, and with that stop the
    /// one that it is made of.
    pub(super) fn has_room(
        &self,
        place: &Place,
        of: &InstanceId,
        what: &str,
    ) -> Result<(), TargetError> {
        let held = lock(&self.monitors).get(of).map(|it| it.subject().labels.volume.clone());
        // Else it is the volume itself.
        let volume = held.unwrap_or_else(|| of.clone());
        let Ok(disk) = rustix::fs::statvfs(&place.volumes) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = size(&place.data(&volume)).saturating_add(SPARE);
        if needed <= free {
            return Ok(());
        }
        let (needed, free) = (Bytes::mib(needed.div_ceil(1 << 20)), Bytes::mib(free >> 20));
        let cause = format!(
            "a copy of {of} takes {needed}, what is written meanwhile included, and {free} are free \
             on the disk of {}",
            place.volumes.display()
        );
        let hint = "make room there, or have the root on another disk with --root DIR";
        Err(TargetError::permanent(what, cause, hint))
    }
}

/// What is in a directory takes so many bytes on disk; what goes meanwhile is not counted.
pub(super) fn size(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.blocks() * BLOCK,
        Err(_) => 0,
    });
    sizes.sum()
}
