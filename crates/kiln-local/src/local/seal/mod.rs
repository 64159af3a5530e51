//! Keeping root filesystems from being altered, in the strongest way that the machine has.
//!
//! Each way is a [`Sealing`]. They are tried from the strongest on, down to the weakest that the
//! stack permits; what each lacked is said when none is left. What is chosen goes to the launcher
//! as a [`Seal`], which it checks against the very file that it mounts.

mod dm_verity;
mod fs_verity;
mod held;
mod rot;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_model::digest::Digest;
use kiln_model::observed::{Aspect, Drift};
use kiln_model::trust::Integrity;

use super::events::Changes;
use super::seams::{FileDigests, ImageFiles, Images};
use crate::launcher::protocol::{ImageSource, Seal};
use dm_verity::DmVerity;
use fs_verity::FsVerity;
use rot::Rot;
pub(super) use watch::Watch;

/// A way to keep the file of a root filesystem from being altered while instances run from it.
trait Sealing: Send + Sync {
    /// Which one it is.
    fn integrity(&self) -> Integrity;

    /// Takes hold of the file, after which no instance can see anything that the image's digest
    /// does not cover without that being noticed.
    fn apply(&self, candidate: &Candidate<'_>) -> Result<Seal, Failure>;
}

/// A file that is to be sealed.
struct Candidate<'a> {
    images: &'a dyn Images,
    image: &'a ImageFiles,
    file: &'a File,
    known: &'a Mutex<BTreeMap<Digest, FileDigests>>,
    rot: &'a Rot,
}

/// Why a file is not sealed in some way.
#[derive(Debug)]
enum Failure {
    /// The machine has not what it takes.
    Lacks(String),
    /// The file is not what it should be.
    Altered(String),
    /// The file can't be read.
    Io(io::Error),
}

/// Why a file is not sealed in any way.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    /// The machine can do less than the stack demands.
    #[error(
        "its root filesystem can't be kept from being altered as the stack demands, by \
         {demanded} or better: {lacks}"
    )]
    TooWeak {
        /// The weakest way that the stack permits.
        demanded: Integrity,
        /// What each way lacked.
        lacks: String,
    },
    /// The file is not what it should be.
    #[error("its image was altered: {0}")]
    Altered(String),
    /// The file can't be read.
    #[error("its image's filesystem {path} can't be read")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// All ways of sealing.
pub(super) struct Seals {
    dm_verity: Arc<DmVerity>,
    watch: Arc<Watch>,
    /// From the strongest.
    ways: Vec<Arc<dyn Sealing>>,
    /// What files that were read in full measure, by their digest: that never changes.
    known: Mutex<BTreeMap<Digest, FileDigests>>,
    /// What the kernel has refused to read.
    rot: Arc<Rot>,
}

impl Seals {
    /// The ways of this machine. What is watched and found altered raises the alarm in `changes`.
    pub(super) fn new(images: Arc<dyn Images>, changes: Arc<Changes>) -> Self {
        let dm_verity = Arc::new(DmVerity::default());
        let rot = Arc::new(Rot::new());
        let watch = Arc::new(Watch::new(images, changes, rot.clone()));
        let mut ways: Vec<Arc<dyn Sealing>> =
            vec![Arc::new(FsVerity), dm_verity.clone(), watch.clone()];
        ways.sort_by_key(|way| std::cmp::Reverse(way.integrity()));
        Self { dm_verity, watch, ways, known: Mutex::default(), rot }
    }

    /// Seals the file of an image, at least as strongly as demanded.
    pub(super) fn seal(
        &self,
        images: &dyn Images,
        image: &ImageFiles,
        demanded: Option<Integrity>,
    ) -> Result<ImageSource, SealError> {
        let failed = |source| SealError::Io { path: image.rootfs.display().to_string(), source };
        let file = File::open(&image.rootfs).map_err(failed)?;
        let candidate =
            Candidate { images, image, file: &file, known: &self.known, rot: &self.rot };
        let demanded = demanded.unwrap_or(Integrity::Watched);
        let mut lacks = Vec::new();
        for way in self.ways.iter().filter(|way| way.integrity() >= demanded) {
            match way.apply(&candidate) {
                Ok(seal) => {
                    let (path, digest) = (image.rootfs.clone(), Some(image.digest));
                    return Ok(ImageSource { path, digest, seal });
                }
                Err(Failure::Lacks(what)) => lacks.push(format!("{}: {what}", way.integrity())),
                Err(Failure::Altered(how)) => return Err(SealError::Altered(how)),
                Err(Failure::Io(error)) => return Err(failed(error)),
            }
        }
        Err(SealError::TooWeak { demanded, lacks: lacks.join("; ") })
    }

    /// Notes that the launcher could not use a seal: the next start makes the hash tree anew, and
    /// the one after that has a weaker seal, where that is permitted.
    pub(super) fn unusable(&self, seal: &Seal, why: &str) {
        if let Seal::DmVerity { tree, .. } = seal {
            self.dm_verity.failed(why);
            // It is derived; where it can't be removed, it stays as it is.
            let _ = std::fs::remove_file(tree);
        }
    }

    /// In what the root filesystem of a running instance differs from its image. `main` is the host's
    /// id of its main process, and it was started so many milliseconds after 1970 began.
    pub(super) fn differences(
        &self,
        image: &ImageSource,
        main: i32,
        started_at_ms: u64,
    ) -> Vec<Drift> {
        let refused = || self.refused(image, main, started_at_ms);
        let found = self.watch.complaint(image).or_else(refused);
        let expected = image.digest.map_or_else(|| "as it was".to_owned(), |d| d.to_string());
        found.map(|found| Drift::new(Aspect::Image, expected, found)).into_iter().collect()
    }

    /// What the kernel has refused to read of an instance's filesystem. The hash tree may be what is
    /// wrong: it is made anew.
    fn refused(&self, image: &ImageSource, main: i32, started_at_ms: u64) -> Option<String> {
        let found = self.rot.complaint(image, main, started_at_ms)?;
        if let Seal::DmVerity { tree, .. } = &image.seal
            && image.digest.is_some_and(|digest| self.rot.is_doubted(&digest))
        {
            let _ = std::fs::remove_file(tree);
        }
        Some(found)
    }

    /// What watches files.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }
}

impl Candidate<'_> {
    /// What the file's blocks are to measure, as was signed or as it was read before. Where neither
    /// is known, or the kernel has refused to read some of it, the file is read in full.
    fn expected(&self) -> Result<FileDigests, Failure> {
        match self.image.signed {
            Some(signed) if !self.rot.is_doubted(&self.image.digest) => Ok(signed),
            _ => self.read_once(),
        }
    }

    /// What the file's blocks measure, for which it is read in full at the first start.
    fn read_once(&self) -> Result<FileDigests, Failure> {
        let doubted = self.rot.is_doubted(&self.image.digest);
        let known = self.known().get(&self.image.digest).copied().filter(|_| !doubted);
        known.map_or_else(|| self.read_in_full(), Ok)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Digest, FileDigests>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file through the descriptor that is held, and refuses it if it is not as its
    /// digest says, or some of it can't be read.
    fn read_in_full(&self) -> Result<FileDigests, Failure> {
        let path = self.image.rootfs.display();
        if self.rot.is_doubted(&self.image.digest) {
            // From the disk, and not from what was read before. Where that can't be, it is read as
            // it is.
            let _ = rustix::fs::fadvise(self.file, 0, None, rustix::fs::Advice::DontNeed);
        }
        let found = match self.images.measure(self.file) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                return Err(Failure::Altered(format!("some of {path} can't be read: {error}")));
            }
            found => found.map_err(Failure::Io)?,
        };
        let expected = self.image.digest;
        if found.digest == expected {
            self.known().insert(found.digest, found);
            self.rot.trust(&expected, &self.image.rootfs);
            return Ok(found);
        }
        let text = format!("{path} has the checksum {}, not {expected}", found.digest);
        Err(Failure::Altered(text))
    }
}
