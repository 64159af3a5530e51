//! Keeping a collection of garbage and those who use the store apart.

use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use kiln_model::digest::Digest;
use rustix::fs::{FlockOperation, flock};

use super::{ImageStore, StoreError, at};

/// How long the other side is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// While it is there, nothing is removed from the store; or, held alone, nothing is built or
/// published.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

impl ImageStore {
    /// Keeps collections from removing anything until it is dropped. To be held by who relies on
    /// blobs that no entry of the index names yet.
    pub fn hold(&self) -> Result<Hold, StoreError> {
        self.take(FlockOperation::NonBlockingLockShared)
    }

    /// Keeps everybody else from building and publishing until it is dropped.
    pub(crate) fn hold_alone(&self) -> Result<Hold, StoreError> {
        self.take(FlockOperation::NonBlockingLockExclusive)
    }

    fn take(&self, how: FlockOperation) -> Result<Hold, StoreError> {
        let path = self.index.join("store.lock");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(at(&path))?;
        let started = Instant::now();
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Hold { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let text = "another process builds or removes images and does not come to \
                                an end; end it and try again";
                    return Err(at(&path)(io::Error::new(io::ErrorKind::TimedOut, text)));
                }
                Err(error) => return Err(at(&path)(error.into())),
            }
        }
    }

    /// Makes the entry of a component young, if there is one: it is about to be used.
    pub(crate) fn touch(&self, recipe: &Digest) -> Result<(), StoreError> {
        let _hold = self.hold()?;
        make_young(&self.index.join(format!("{}.json", recipe.hex())))
    }

    /// Makes a blob that is there young: it is about to be used. Whether it is there.
    pub fn touch_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        let _hold = self.hold()?;
        let path = self.blob(digest);
        make_young(&path)?;
        Ok(path.exists())
    }
}

/// Sets the modification time of a file to now; nothing where there is no file.
pub(super) fn make_young(path: &Path) -> Result<(), StoreError> {
    let times = FileTimes::new().set_modified(SystemTime::now());
    match File::open(path).and_then(|file| file.set_times(times)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}
