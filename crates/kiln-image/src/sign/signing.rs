//! The directory of keys, and each change of it.
//!
//! The first key and ring are made elsewhere and come into place together, by a rename of the
//! directory. From then on a new key's file is written and synced before the ring that names it,
//! and a ring replaces the one before it by a rename. So a crash leaves the old ring or the new
//! one, and at most a key's file that no ring names, which is taken away with the next revocation.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use kiln_model::trust::PublicKey;
use rustix::fs::{FlockOperation, flock};

use super::key::public_pem;
use super::{Revocation, Ring, SecretKey, SignError, What, at, file_of};

/// The longest ring that is read, in bytes.
const MAX_RING_BYTES: u64 = 64 << 20;
/// How long another process that changes the keys is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The keys of one root. Making the value touches nothing.
#[derive(Clone, Debug)]
pub struct Signing {
    directory: PathBuf,
}

impl Signing {
    /// The keys of the root at `root`.
    pub fn of_root(root: &Path) -> Self {
        Self { directory: root.join("store/signing") }
    }

    /// The file of the ring.
    pub fn ring_path(&self) -> PathBuf {
        self.directory.join("ring.json")
    }

    /// Where records of root filesystems are.
    pub(super) fn rootfs_path(&self, manifest: &Digest) -> PathBuf {
        self.directory.join("rootfs").join(file_of(manifest))
    }

    /// The ring, verified; `None` where the root has not signed yet.
    pub fn ring(&self) -> Result<Option<Ring>, SignError> {
        let Some(bytes) = self.ring_bytes()? else { return Ok(None) };
        self.read_ring(&bytes).map(Some)
    }

    /// The bytes of the ring; `None` where the root has not signed yet.
    pub(crate) fn ring_bytes(&self) -> Result<Option<Vec<u8>>, SignError> {
        let path = self.ring_path();
        match File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(MAX_RING_BYTES).read_to_end(&mut bytes).map_err(at(&path))?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.directory.exists() {
                    Err(SignError::NoRing { path })
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// A ring from its bytes, whose current key must be the one in its file.
    pub(crate) fn read_ring(&self, bytes: &[u8]) -> Result<Ring, SignError> {
        let altered = |reason| SignError::Ring { path: self.ring_path(), reason };
        let ring = Ring::read(bytes).map_err(altered)?;
        SecretKey::load(&self.key_path(&ring.current), ring.current)?;
        Ok(ring)
    }

    /// The key that signs, made at first use.
    pub fn current(&self) -> Result<SecretKey, SignError> {
        if let Some(ring) = self.ring()? {
            return SecretKey::load(&self.key_path(&ring.current), ring.current);
        }
        let key = SecretKey::generate()?;
        if self.begin(&key)? {
            return Ok(key);
        }
        // Another process has made one meanwhile.
        let path = self.ring_path();
        let ring = self.ring()?.ok_or(SignError::NoRing { path })?;
        SecretKey::load(&self.key_path(&ring.current), ring.current)
    }

    /// Makes a new key that signs from now on. What the others signed stays valid.
    pub fn rotate(&self) -> Result<PublicKey, SignError> {
        self.adopt(SecretKey::generate()?)
    }

    /// Takes in a key that somebody else made. It signs from now on.
    pub fn import(&self, path: &Path) -> Result<PublicKey, SignError> {
        self.adopt(SecretKey::import(path)?)
    }

    fn adopt(&self, key: SecretKey) -> Result<PublicKey, SignError> {
        let public = key.public();
        if self.begin(&key)? {
            return Ok(public);
        }
        let _held = self.hold()?;
        let path = self.ring_path();
        let mut ring = self.ring()?.ok_or(SignError::NoRing { path })?;
        if ring.revocation(What::Key(public)).is_some() {
            return Err(SignError::Revoked { key: public });
        }
        ring.counter += 1;
        ring.current = public;
        ring.own.insert(public);
        self.save_key(&key)?;
        self.save_ring(&ring, &key)?;
        Ok(public)
    }

    /// Makes the directory with its first key, unless there is one already. Whether it did.
    fn begin(&self, key: &SecretKey) -> Result<bool, SignError> {
        if self.directory.exists() {
            return Ok(false);
        }
        let parent = self.directory.parent().unwrap_or(&self.directory);
        make_private(parent)?;
        remove_unfinished(parent);
        let beside = parent.join(format!("{UNFINISHED}{}-{}", std::process::id(), next()));
        let there = Self { directory: beside.clone() };
        let made = make_private(&beside.join("keys"))
            .and_then(|()| there.save_key(key))
            .and_then(|()| there.save_ring(&Ring::first(key.public()), key));
        let placed = made.and_then(|()| match fs::rename(&beside, &self.directory) {
            Ok(()) => sync(parent).map(|()| true),
            Err(_) if self.directory.exists() => Ok(false),
            Err(error) => Err(at(&self.directory)(error)),
        });
        if !matches!(placed, Ok(true)) {
            // What could not be placed is of no use, nor is an error about it.
            let _ = fs::remove_dir_all(&beside);
        }
        placed
    }

    /// Revokes a key, own or not, or an image. Whether that is new. Where the current key is
    /// revoked, a new one takes its place. The secret half of a revoked key is removed.
    pub fn revoke(
        &self,
        what: What,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<bool, SignError> {
        // There is a key to sign the revocation with.
        drop(self.current()?);
        let _held = self.hold()?;
        let path = self.ring_path();
        let mut ring = self.ring()?.ok_or(SignError::NoRing { path })?;
        if ring.revocation(what).is_some() {
            return Ok(false);
        }
        ring.counter += 1;
        ring.revoked.push(Revocation { what, reason, at: now });
        let key = if what == What::Key(ring.current) {
            let key = SecretKey::generate()?;
            ring.current = key.public();
            ring.own.insert(ring.current);
            self.save_key(&key)?;
            key
        } else {
            SecretKey::load(&self.key_path(&ring.current), ring.current)?
        };
        self.save_ring(&ring, &key)?;
        self.remove_strays(&ring)?;
        Ok(true)
    }

    /// Writes the secret half of an own key (the current one where none is named) to a new file.
    pub fn export(&self, key: Option<PublicKey>, to: &Path) -> Result<PublicKey, SignError> {
        let key = self.own_key(key)?;
        SecretKey::load(&self.key_path(&key), key)?.save_new(to)?;
        Ok(key)
    }

    /// The public half of an own key (the current one where none is named) as PEM.
    pub fn public_pem(&self, key: Option<PublicKey>) -> Result<String, SignError> {
        let key = self.own_key(key)?;
        public_pem(key).ok_or(SignError::NoSuchKey { key })
    }

    fn own_key(&self, key: Option<PublicKey>) -> Result<PublicKey, SignError> {
        let Some(key) = key else { return Ok(self.current()?.public()) };
        let own = self.ring()?.is_some_and(|ring| ring.is_own(&key));
        if own { Ok(key) } else { Err(SignError::NoSuchKey { key }) }
    }

    /// Reads each key's file and the ring, and gives all that is wrong.
    pub fn verify(&self) -> Vec<SignError> {
        let ring = match self.ring() {
            Ok(Some(ring)) => ring,
            Ok(None) => return Vec::new(),
            Err(error) => return vec![error],
        };
        let load = |key: &PublicKey| SecretKey::load(&self.key_path(key), *key).err();
        ring.own.iter().filter(|key| ring.is_own(key)).filter_map(load).collect()
    }

    fn key_path(&self, key: &PublicKey) -> PathBuf {
        self.directory.join("keys").join(key_file(key))
    }

    /// The names of the files of keys.
    fn key_files(&self) -> Result<BTreeSet<String>, SignError> {
        let directory = self.directory.join("keys");
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(at(&directory))?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect::<Result<_, _>>().map_err(at(&directory))
    }

    fn save_key(&self, key: &SecretKey) -> Result<(), SignError> {
        let path = self.key_path(&key.public());
        if SecretKey::load(&path, key.public()).is_ok() {
            return Ok(());
        }
        let unfinished = self.directory.join("keys/.unfinished");
        let _ = fs::remove_file(&unfinished);
        key.save_new(&unfinished)?;
        publish(&unfinished, &path)
    }

    fn save_ring(&self, ring: &Ring, key: &SecretKey) -> Result<(), SignError> {
        self.write(&self.ring_path(), &ring.to_bytes(key))
    }

    /// Writes a file whole or not at all, readable by its owner only.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), SignError> {
        let parent = path.parent().unwrap_or(&self.directory);
        make_private(parent)?;
        let unfinished = parent.join(format!(".{}-{}", std::process::id(), next()));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let written = options
            .open(&unfinished)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        written.map_err(at(&unfinished)).and_then(|()| publish(&unfinished, path)).inspect_err(
            |_| {
                // The first error is the one to show.
                let _ = fs::remove_file(&unfinished);
            },
        )
    }

    /// Takes away files of keys that are revoked, or that no ring came to name.
    fn remove_strays(&self, ring: &Ring) -> Result<(), SignError> {
        let wanted: BTreeSet<String> =
            ring.own.iter().filter(|key| ring.is_own(key)).map(key_file).collect();
        for name in self.key_files()?.difference(&wanted) {
            let path = self.directory.join("keys").join(name);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Waits until no other process changes the keys.
    fn hold(&self) -> Result<File, SignError> {
        let path = self.directory.join("lock");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(at(&path))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(SignError::Busy { path, waited_seconds: PATIENCE.as_secs() });
                }
                Err(error) => return Err(at(&path)(error.into())),
            }
        }
    }
}

/// How the name of a directory begins that is to become the keys'.
const UNFINISHED: &str = ".signing-";

/// The name of a key's file.
fn key_file(key: &PublicKey) -> String {
    let text = key.to_string();
    format!("{}.pem", text.rsplit(':').next().unwrap_or(&text))
}

/// A number that no other call in this process gets.
fn next() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn make_private(directory: &Path) -> Result<(), SignError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at(directory))
}

fn sync(directory: &Path) -> Result<(), SignError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(at(directory))
}

/// Gives a written file its place, durably.
fn publish(unfinished: &Path, path: &Path) -> Result<(), SignError> {
    fs::rename(unfinished, path).map_err(at(path))?;
    sync(path.parent().unwrap_or(path))
}

/// Takes away what processes left that ended while they made a first key. Failures leave it to
/// the next time.
fn remove_unfinished(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(UNFINISHED).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing() -> (tempfile::TempDir, Signing) {
        let root = tempfile::tempdir().unwrap();
        let signing = Signing::of_root(root.path());
        (root, signing)
    }

    #[test]
    fn a_key_is_made_at_first_use_and_rotated() {
        let (_root, signing) = signing();
        assert_eq!(signing.ring().unwrap(), None);
        let first = signing.current().unwrap().public();
        assert_eq!(signing.current().unwrap().public(), first);
        let second = signing.rotate().unwrap();
        let ring = signing.ring().unwrap().unwrap();
        assert_eq!((ring.counter, ring.current), (2, second));
        assert!(ring.is_own(&first) && ring.is_own(&second));
        assert!(signing.verify().is_empty());
    }

    #[test]
    fn several_processes_at_once_get_one_key() {
        let (_root, signing) = signing();
        let keys: BTreeSet<PublicKey> = std::thread::scope(|scope| {
            let made: Vec<_> =
                (0..8).map(|_| scope.spawn(|| signing.current().unwrap().public())).collect();
            made.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(keys.len(), 1);
        let left = fs::read_dir(signing.directory.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "only the keys' directory");
    }

    #[test]
    fn a_revoked_current_key_gets_a_successor_and_loses_its_secret() {
        let (_root, signing) = signing();
        let first = signing.current().unwrap().public();
        let revoke = || signing.revoke(What::Key(first), Some("lost".into()), Timestamp(1));
        assert!(revoke().unwrap());
        assert!(!revoke().unwrap(), "once");
        let ring = signing.ring().unwrap().unwrap();
        assert!(ring.current != first && !ring.is_own(&first));
        assert!(!signing.key_path(&first).exists());
        assert!(signing.export(Some(first), Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_key_comes_back_from_its_export_unless_it_was_revoked() {
        let (root, signing) = signing();
        let first = signing.current().unwrap().public();
        let file = root.path().join("backup.pem");
        assert_eq!(signing.export(None, &file).unwrap(), first);
        let second = signing.rotate().unwrap();
        assert_eq!(signing.import(&file).unwrap(), first);
        assert_eq!(signing.ring().unwrap().unwrap().current, first);
        signing.revoke(What::Key(first), None, Timestamp(1)).unwrap();
        assert!(matches!(signing.import(&file), Err(SignError::Revoked { .. })));
        assert!(signing.public_pem(Some(second)).unwrap().contains("BEGIN PUBLIC KEY"));
    }

    #[test]
    fn a_ring_that_is_gone_altered_or_of_others_is_found() {
        let (_root, signing) = signing();
        signing.current().unwrap();
        let path = signing.ring_path();
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(signing.ring(), Err(SignError::NoRing { .. })));
        assert!(matches!(signing.rotate(), Err(SignError::NoRing { .. })));
        let stranger = SecretKey::from_bytes(&[1; 32]);
        fs::write(&path, Ring::first(stranger.public()).to_bytes(&stranger)).unwrap();
        assert!(matches!(signing.ring(), Err(SignError::Key { .. })));
        let mut altered = good.clone();
        altered[40] ^= 1;
        fs::write(&path, altered).unwrap();
        assert!(matches!(signing.ring(), Err(SignError::Ring { .. })));
        fs::write(&path, good).unwrap();
        assert!(signing.ring().unwrap().is_some());
    }
}
