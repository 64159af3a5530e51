//! Writing blobs so that they are whole or not there.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Descriptor, ImageStore, StoreError, at, hold};
use crate::checksum::{self, Hasher};

/// A file that is being written; it is gone when dropped before it was published.
pub struct Unfinished {
    file: Option<File>,
    path: PathBuf,
    hasher: Hasher,
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotConnected.into()) };
        let count = file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

impl Unfinished {
    /// Syncs the file and gives it its place; the directory is synced too.
    pub(super) fn rename_to(mut self, path: &Path) -> Result<(), StoreError> {
        if let Some(file) = self.file.take() {
            file.sync_all().map_err(at(&self.path))?;
        }
        fs::rename(&self.path, path).map_err(at(path))?;
        let directory = path.parent().unwrap_or(path);
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(directory))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing at the path; otherwise a later sweep finds it.
        let _ = fs::remove_file(&self.path);
    }
}

impl ImageStore {
    /// A new file for what is to become a blob.
    pub fn unfinished(&self) -> Result<Unfinished, StoreError> {
        let path = self.temporary.join(unique_name());
        let file = File::create_new(&path).map_err(at(&path))?;
        Ok(Unfinished { file: Some(file), path, hasher: Hasher::default() })
    }

    /// Makes a written file a blob and gives its digest and length in bytes. A blob that is there
    /// and whole stays as it is.
    pub fn publish(&self, mut unfinished: Unfinished) -> Result<(Digest, u64), StoreError> {
        let (digest, length) = std::mem::take(&mut unfinished.hasher).finish();
        let _hold = self.hold()?;
        let path = self.blob(&digest);
        let whole =
            File::open(&path).and_then(checksum::of_reader).is_ok_and(|(found, _)| found == digest);
        if whole {
            hold::make_young(&path)?;
        } else {
            if let Some(file) = &unfinished.file {
                let read_only = Permissions::from_mode(0o444);
                file.set_permissions(read_only).map_err(at(&unfinished.path))?;
            }
            unfinished.rename_to(&path)?;
        }
        Ok((digest, length))
    }

    /// Makes a file that was summed already a blob, and takes it away from its place.
    pub(crate) fn publish_file(&self, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        let file = File::open(path).map_err(at(path))?;
        file.set_permissions(Permissions::from_mode(0o444)).map_err(at(path))?;
        let (path, hasher) = (path.to_path_buf(), Hasher::default());
        Unfinished { file: Some(file), path, hasher }.rename_to(&self.blob(digest))
    }

    /// How much of a blob an earlier attempt has left to go on with, in bytes.
    pub(crate) fn arrived(&self, blob: &Descriptor) -> u64 {
        let left = fs::metadata(self.arriving_path(&blob.digest)).map_or(0, |meta| meta.len());
        left.min(blob.size)
    }

    /// Where blobs are kept, and how many bytes are free there; none where nobody says.
    pub(crate) fn free_bytes(&self) -> (PathBuf, Option<u64>) {
        let disk = rustix::fs::statvfs(&self.blobs).ok();
        let free = disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        (self.blobs.clone(), free)
    }

    fn arriving_path(&self, digest: &Digest) -> PathBuf {
        self.temporary.join(format!("blob-{}", digest.hex()))
    }

    /// Takes hold of the file that a blob comes into while it is fetched, which is found again by a
    /// later attempt. Another process that holds it is waited for, since it fetches the same bytes.
    pub(crate) fn arriving(&self, digest: &Digest) -> Result<Arriving, StoreError> {
        let path = self.arriving_path(digest);
        let started = Instant::now();
        loop {
            let mut options = File::options();
            let file = options.append(true).create(true).open(&path).map_err(at(&path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The holder before may have moved the file away meanwhile.
                Ok(()) if is_at(&file, &path) => return Ok(Arriving { _file: file, path }),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if started.elapsed() < super::BUILD_WAIT => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(Errno::WOULDBLOCK) => {
                    let waited_seconds = started.elapsed().as_secs();
                    return Err(StoreError::Busy { name: digest.to_string(), waited_seconds });
                }
                Err(error) => return Err(at(&path)(error.into())),
            }
        }
    }

    /// Makes bytes a blob.
    pub fn publish_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), StoreError> {
        let mut unfinished = self.unfinished()?;
        unfinished.write_all(bytes).map_err(at(&unfinished.path))?;
        self.publish(unfinished)
    }

    /// Makes a new directory for what a build needs while it runs.
    pub(crate) fn workspace(&self) -> Result<Workspace, StoreError> {
        self.sweep();
        let path = self.temporary.join(unique_name());
        fs::create_dir(&path).map_err(at(&path))?;
        Ok(Workspace { path })
    }

    /// Takes away what processes left that are no more. Failures leave it to the next sweep.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.temporary) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let path = entry.path();
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
}

/// A name that no other thread or living process uses: `PID-COUNT`.
fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}

/// The file of a blob on its way, held against other processes until it is dropped.
pub(crate) struct Arriving {
    _file: File,
    pub(crate) path: PathBuf,
}

/// A directory that is gone when dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
}

impl Workspace {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What can't be removed now, a later sweep finds.
        let _ = fs::remove_dir_all(&self.path);
    }
}
