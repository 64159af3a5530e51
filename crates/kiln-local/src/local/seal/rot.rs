//! Blocks that the kernel has refused to read: of a file under fs-verity or behind dm-verity, when
//! they are not what was sealed. A program that needs one gets an I/O error; here it is noticed, so
//! that the instance is replaced, and the file is read in full before the next start from it.
//!
//! dm-verity says so in the state of the device. fs-verity says so in the kernel's log alone, a line
//! for each attempt to read such a block, rate-limited:
//! `fs-verity (vda1, inode 4711): FILE CORRUPTED! pos=…` (`fs/verity/verify.c` of the Linux sources).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::digest::Digest;

use crate::launcher::device_mapper::DeviceMapper;
use crate::launcher::protocol::{ImageSource, Seal};

/// The kernel's log, a record for each read.
const LOG: &str = "/dev/kmsg";
/// The longest record of it, in bytes.
const RECORD_BYTES: usize = 8192;
/// The most records that are read at a time.
const RECORDS: usize = 10_000;

/// A file, by the name of its filesystem's device as the kernel's log has it, and its number.
type Key = (String, u64);

/// See the module.
#[derive(Default)]
pub(super) struct Rot(Mutex<State>);

#[derive(Default)]
struct State {
    /// The kernel's log, behind what was read of it; none where it can't be read.
    log: Option<File>,
    /// Files under fs-verity of which the kernel has complained: when it last did, in milliseconds
    /// since 1970.
    bad: BTreeMap<Key, u64>,
    /// Instances that have met such a block, by process and start, and what was said of them. Their
    /// file may be another by now; theirs stays what it is.
    condemned: BTreeMap<(i32, u64), String>,
    /// Filesystems that are to be read in full before the next start.
    doubted: BTreeSet<Digest>,
}

impl Rot {
    /// Listens to the kernel from now on.
    pub(super) fn new() -> Self {
        let log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(LOG);
        let log = log.and_then(|mut log| log.seek(SeekFrom::End(0)).map(|_| log)).ok();
        Self(Mutex::new(State { log, ..State::default() }))
    }

    /// What is wrong with a running instance's filesystem, which was made when it was started, in
    /// milliseconds since 1970; `main` is the host's id of its main process. From then on the
    /// filesystem is doubted.
    pub(super) fn complaint(
        &self,
        image: &ImageSource,
        main: i32,
        started_at_ms: u64,
    ) -> Option<String> {
        let instance = (main, started_at_ms);
        if let Some(known) = self.lock().condemned.get(&instance) {
            return Some(known.clone());
        }
        let found = match &image.seal {
            Seal::Watched(_) => false,
            Seal::DmVerity { .. } => device_of(main).is_some_and(has_failed),
            Seal::FsVerity { .. } => {
                let key = key_of(&image.path)?;
                let mut state = self.lock();
                let _ = state.hear();
                state.bad.get(&key).is_some_and(|last| *last >= started_at_ms)
            }
        };
        if !found {
            return None;
        }
        let (path, way) = (image.path.display(), image.seal.integrity());
        let text =
            format!("altered: a block of {path} is not what was sealed, and {way} refuses it");
        let mut state = self.lock();
        state.condemned.retain(|(pid, _), _| Path::new(&format!("/proc/{pid}")).exists());
        state.condemned.insert(instance, text.clone());
        state.doubted.extend(image.digest);
        Some(text)
    }

    /// Whether a filesystem is to be read in full before it is started from.
    pub(super) fn is_doubted(&self, digest: &Digest) -> bool {
        self.lock().doubted.contains(digest)
    }

    /// A file was read in full and is right: what was said of it before is over.
    pub(super) fn trust(&self, digest: &Digest, path: &Path) {
        let key = key_of(path);
        let mut state = self.lock();
        // What the kernel has said until now is about what was there until now.
        let _ = state.hear();
        state.doubted.remove(digest);
        if let Some(key) = key {
            state.bad.remove(&key);
        }
    }

    /// Whether the kernel has said something new since this was last asked.
    pub(super) fn has_news(&self) -> bool {
        self.lock().hear()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reads what the kernel has said meanwhile; whether it has complained.
    fn hear(&mut self) -> bool {
        let Some(log) = &mut self.log else { return false };
        let (mut record, mut complained) = ([0; RECORD_BYTES], false);
        for _ in 0..RECORDS {
            match log.read(&mut record) {
                Ok(length @ 1..) => {
                    let line = String::from_utf8_lossy(&record[..length]);
                    if let Some(key) = named(&line) {
                        self.bad.insert(key, now());
                        complained = true;
                    }
                }
                // What came too fast is gone, and the kernel says it again with the next attempt.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        complained
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The file that a record of the kernel's log complains of:
/// `3,1042,91234567,-;fs-verity (vda1, inode 4711): FILE CORRUPTED! pos=0, level=-1, …`.
fn named(record: &str) -> Option<Key> {
    let (head, text) = record.split_once(';')?;
    // The kernel's own have the facility 0; others can't claim it.
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    if priority >= 8 {
        return None;
    }
    let rest = text.strip_prefix("fs-verity (")?;
    let (place, complaint) = rest.split_once("): ")?;
    let (device, number) = place.rsplit_once(", inode ")?;
    let number = number.parse().ok()?;
    complaint.starts_with("FILE CORRUPTED").then(|| (device.to_owned(), number))
}

/// How the kernel's log calls the file that is at a path now.
fn key_of(path: &Path) -> Option<Key> {
    let meta = std::fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some((link.file_name()?.to_str()?.to_owned(), meta.ino()))
}

/// The device under the root of a process.
fn device_of(pid: i32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/root")).map(|meta| meta.dev()).ok()
}

/// Whether dm-verity has met a block behind a device that is not as the tree says.
fn has_failed(device: u64) -> bool {
    let mapper = DeviceMapper::open(Path::new("/dev"));
    mapper.and_then(|mapper| mapper.status(device)).is_ok_and(|status| status.starts_with('C'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_complains_of_is_found_in_its_log() {
        let line = "3,1042,91234567,-;fs-verity (vda1, inode 4711): FILE CORRUPTED! pos=12288, \
                    level=-1, want_hash=sha256:ab, real_hash=sha256:cd\n";
        assert_eq!(named(line), Some(("vda1".to_owned(), 4711)));
        for other in [
            "6,1,2,-;device-mapper: verity: sha256 using implementation \"sha256-ni\"",
            "3,1,2,-;fs-verity (vda1, inode 4711): Unknown digest algorithm",
            "3,1,2,-;fs-verity (vda1, inode x): FILE CORRUPTED! pos=0",
            "fs-verity (vda1, inode 1): FILE CORRUPTED! pos=0",
            // Written by a program.
            "11,1,2,-;fs-verity (vda1, inode 4711): FILE CORRUPTED! pos=0",
            "",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_is_trusted_again_when_it_was_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let digest = Digest::of(b"");
        let source = ImageSource {
            path: file.path().to_owned(),
            digest: Some(digest),
            seal: Seal::FsVerity { digest },
        };
        let Some(key) = key_of(file.path()) else {
            println!("skipped: a_file_is_trusted_again_when_it_was_read: its disk has no name");
            return;
        };
        let rot = Rot::default();
        assert_eq!(rot.complaint(&source, 1, 0), None);
        rot.lock().bad.insert(key, 1000);
        assert_eq!(rot.complaint(&source, 1, 1001), None, "it was started afterwards");
        assert!(!rot.is_doubted(&digest));
        let found = rot.complaint(&source, 1, 1000).unwrap();
        assert!(found.starts_with("altered: ") && found.contains("fs-verity"), "{found}");
        assert!(rot.is_doubted(&digest));
        rot.trust(&digest, file.path());
        assert!(!rot.is_doubted(&digest));
        assert_eq!(rot.complaint(&source, 1, 0), None);
        assert_eq!(rot.complaint(&source, 1, 1000), Some(found), "it has seen what it has seen");
    }
}
