//! By watching: where the kernel verifies nothing itself, the file is read in full before it is
//! mounted, held open, and from then on every write to it is noticed.
//!
//! fanotify tells of writes at once. It does not tell of those through a shared mapping; the time
//! of the last change, which the kernel sets for every write and nobody can set back, is looked at
//! every 100 ms. Where just that time has changed (by `chmod`, or a link), the file is read again.
//!
//! What is accepted is a [`Stamp`]: a file as it was when it was found right. It stands in the
//! record of each instance, so that a daemon that was not there meanwhile can tell.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_model::digest::Digest;
use kiln_model::trust::Integrity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::held::{Held, State};
use super::rot::Rot;
use super::{Candidate, Failure, Sealing};
use crate::fanotify;
use crate::launcher::protocol::{ImageSource, Seal, Stamp};
use crate::local::events::Changes;
use crate::local::seams::Images;

/// How often files are looked at.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How old the last change of a file must be before it is read: within the clock's tick a second
/// change would have the same time.
const SETTLED: Duration = Duration::from_millis(20);

/// A file, whatever its name is: its device and its number there.
type Key = (u64, u64);

/// See the module.
pub(in crate::local) struct Watch {
    held: Mutex<BTreeMap<Key, Held>>,
    /// Tells of writes; `None` where the kernel does not.
    events: Option<OwnedFd>,
    images: Arc<dyn Images>,
    changes: Arc<Changes>,
    /// What the kernel refuses to read raises the same alarm.
    rot: Arc<Rot>,
}

impl Sealing for Watch {
    fn integrity(&self) -> Integrity {
        Integrity::Watched
    }

    fn apply(&self, candidate: &Candidate<'_>) -> Result<Seal, Failure> {
        let file = candidate.file.try_clone().map_err(Failure::Io)?;
        let stamp = stamp(&file).map_err(Failure::Io)?;
        if self.is_accepted(&stamp) {
            return Ok(Seal::Watched(stamp));
        }
        let path = candidate.image.rootfs.display().to_string();
        let held = Held::of(file, path.clone(), Some(candidate.image.digest));
        // Watched first and read then, so that nothing is missed in between.
        self.hold(key(&stamp), held);
        std::thread::sleep(until_settled(&stamp));
        let read = candidate.read_in_full();
        let now = self::stamp(candidate.file).map_err(Failure::Io)?;
        let mut all = self.lock();
        let Some(held) = all.get_mut(&key(&stamp)) else {
            return Err(Failure::Io(io::Error::other("it was not held for long enough")));
        };
        if let Err(failure) = read {
            if let Failure::Altered(how) = &failure {
                held.alter(how.clone());
            }
            return Err(failure);
        }
        if now != stamp || matches!(held.state, State::Altered) {
            // What was read is right, and may not be any more: the next start reads it again.
            let how = format!("{path} was written to while it was read");
            held.alter(how.clone());
            return Err(Failure::Io(io::Error::new(io::ErrorKind::ResourceBusy, how)));
        }
        held.accept(stamp);
        Ok(Seal::Watched(stamp))
    }
}

impl Watch {
    pub(super) fn new(images: Arc<dyn Images>, changes: Arc<Changes>, rot: Arc<Rot>) -> Self {
        let held = Mutex::new(BTreeMap::new());
        Self { held, events: fanotify::open().ok(), images, changes, rot }
    }

    /// What is wrong with the file of an instance that runs from it.
    pub(super) fn complaint(self: &Arc<Self>, image: &ImageSource) -> Option<String> {
        let Seal::Watched(stamp) = &image.seal else { return None };
        if let Some(held) = self.lock().get_mut(&key(stamp)) {
            held.used_at = Instant::now();
            return held.complaint(stamp);
        }
        self.take_up(image, stamp).err()
    }

    /// Goes on watching a file that an earlier daemon has found right.
    fn take_up(self: &Arc<Self>, image: &ImageSource, then: &Stamp) -> Result<(), String> {
        let path = image.path.display();
        let file = File::open(&image.path)
            .and_then(|file| Ok((stamp(&file)?, file)))
            .map_err(|error| format!("not to be watched any more: {path}: {error}"));
        let (found, file) = file?;
        if key(&found) != key(then) {
            return Err(format!("not to be watched any more: another file is at {path}"));
        }
        self.hold(key(then), Held::of(file, path.to_string(), image.digest));
        let mut all = self.lock();
        let Some(held) = all.get_mut(&key(then)) else { return Ok(()) };
        held.accept(*then);
        self.look_at(key(then), held);
        held.complaint(then).map_or(Ok(()), Err)
    }

    fn is_accepted(&self, stamp: &Stamp) -> bool {
        let mut all = self.lock();
        let Some(held) = all.get_mut(&key(stamp)) else { return false };
        held.used_at = Instant::now();
        held.accepted().as_ref() == Some(stamp)
    }

    /// Begins to watch a file. What is known of it from before stays known.
    fn hold(&self, key: Key, mut held: Held) {
        if let Some(events) = &self.events {
            // Where it fails, the looks still tell.
            let _ = fanotify::watch_writes(events, held.file.as_fd());
        }
        let mut all = self.lock();
        if let Some(known) = all.remove(&key) {
            held.inherit(known);
        }
        all.insert(key, held);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches until nobody else has this. To be called on a thread of its own.
    pub(in crate::local) fn run(watch: &Weak<Self>) {
        let Some(events) = watch
            .upgrade()
            .map(|this| this.events.as_ref().and_then(|events| events.try_clone().ok()))
        else {
            return;
        };
        loop {
            match &events {
                Some(events) => {
                    let mut waited = [PollFd::new(events, PollFlags::IN)];
                    // Whatever it says, the files are looked at.
                    let _ = poll(&mut waited, Some(&TURN));
                }
                None => std::thread::sleep(Duration::from_nanos(TURN.tv_nsec.unsigned_abs())),
            }
            let Some(this) = watch.upgrade() else { return };
            let written = events.as_ref().map(fanotify::written).unwrap_or_default();
            this.turn(&written);
        }
    }

    /// Takes in what was written to, and looks at all files.
    fn turn(self: &Arc<Self>, written: &[Key]) {
        let mut altered = self.rot.has_news();
        {
            let mut all = self.lock();
            all.retain(|_, held| held.is_needed());
            for key in written {
                if let Some(held) = all.get_mut(key) {
                    altered |= held.alter(format!("{} was written to", held.path));
                }
            }
            for (key, held) in all.iter_mut() {
                altered |= self.look_at(*key, held);
            }
        }
        if altered {
            self.changes.all();
        }
    }

    /// Looks whether a file that was found right has changed. Gives true where it was altered.
    fn look_at(self: &Arc<Self>, key: Key, held: &mut Held) -> bool {
        let Some(good) = held.accepted() else { return false };
        let Ok(found) = stamp(&held.file) else { return false };
        if found == good {
            return false;
        }
        if (found.size, found.modified) != (good.size, good.modified) {
            return held.alter(format!("{} was written to", held.path));
        }
        held.state = State::Reading;
        let (watch, file, expected) = (Arc::downgrade(self), held.file.clone(), held.digest);
        std::thread::spawn(move || {
            if let Some(watch) = watch.upgrade() {
                watch.read_again(key, &file, found, expected);
            }
        });
        false
    }

    /// Reads a file of which only the time of its last change has changed.
    fn read_again(&self, key: Key, file: &File, found: Stamp, expected: Option<Digest>) {
        std::thread::sleep(until_settled(&found));
        let read = self.images.measure(file).ok().map(|digests| digests.digest);
        let whole = read.is_some() && read == expected;
        let quiet = stamp(file).is_ok_and(|now| now == found);
        let mut all = self.lock();
        let Some(held) = all.get_mut(&key) else { return };
        if whole && quiet && matches!(held.state, State::Reading) {
            return held.accept(found);
        }
        held.alter(format!("{} was changed", held.path));
        drop(all);
        self.changes.all();
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    Ok(Stamp::of(&file.metadata()?))
}

fn key(stamp: &Stamp) -> Key {
    (stamp.device, stamp.inode)
}

/// How long it takes until a further change would have another time.
fn until_settled(stamp: &Stamp) -> Duration {
    let (seconds, nanos) = stamp.changed;
    let changed =
        Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (changed + SETTLED).saturating_sub(now).min(SETTLED)
}
