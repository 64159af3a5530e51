//! Removing what nobody needs: images that no generation and no instance uses, blobs that no image
//! names, packages that no lock names.
//!
//! What is needed is handed in as digests; [`collect`] follows what they name. What is younger than
//! the grace stays in any case: it may be on its way into a generation. Two things keep a
//! collection from taking what a build is about to use: builds and publications hold the store
//! ([`ImageStore::hold`]) while it removes, and each use makes a file young again.
//!
//! The index forgets an image before its blobs go, so that a crash leaves blobs that nobody names,
//! which the next collection takes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_model::digest::Digest;

use crate::sign::Signing;
use crate::store::{ImageStore, Record, StoreError, at};

/// The longest blob that is looked into for digests, in bytes: manifests and lists of them.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// What is removed, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// How old something must be.
    pub grace: Duration,
    /// Against which time ages are measured.
    pub now: SystemTime,
    /// Whether nothing is removed, only told.
    pub dry_run: bool,
    /// The cache of packages, where it is collected too.
    pub cache: Option<PathBuf>,
}

/// What kind of thing was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An entry of the index, with what was said of the image.
    Image,
    /// A blob.
    Blob,
    /// A file of the cache.
    Package,
}

impl Kind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Blob => "blob",
            Self::Package => "package",
        }
    }
}

/// Something that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// What it was.
    pub kind: Kind,
    /// The image's name, where it was one.
    pub name: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// How many bytes that freed; none for an image, whose blobs count.
    pub bytes: u64,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// What went, images first.
    pub removed: Vec<Removed>,
    /// How many blobs and packages stayed.
    pub kept: u64,
    /// How many bytes they have.
    pub kept_bytes: u64,
}

impl Collected {
    /// How many bytes went.
    pub fn bytes(&self) -> u64 {
        self.removed.iter().map(|removed| removed.bytes).sum()
    }
}

/// Removes what is old enough and neither among `needed` (images by manifest, blobs, packages) nor
/// named by what is.
pub fn collect(
    store: &ImageStore,
    signing: &Signing,
    needed: &BTreeSet<Digest>,
    options: &Options,
) -> Result<Collected, StoreError> {
    let _held = store.hold_alone()?;
    let mut collected = Collected::default();
    let index = Index::read(store, options)?;
    let mut roots = needed.clone();
    roots.extend(&index.young);
    let live = marked(store, roots)?;
    for (path, record) in index.old {
        if live.contains(&record.digest) {
            continue;
        }
        if !options.dry_run {
            forget(store, signing, &path, &record.digest)?;
        }
        let (name, digest) = (Some(record.name), record.digest);
        collected.removed.push(Removed { kind: Kind::Image, name, digest, bytes: 0 });
    }
    sweep(store.blob_directory(), Kind::Blob, &live, options, &mut collected)?;
    if let Some(cache) = &options.cache {
        sweep(&cache.join("sha256"), Kind::Package, needed, options, &mut collected)?;
    }
    Ok(collected)
}

/// Every digest that a text names.
pub fn digests_in(text: &[u8]) -> BTreeSet<Digest> {
    const PREFIX: &[u8] = b"sha256:";
    let mut found = BTreeSet::new();
    for at in 0..text.len() {
        let end = at + PREFIX.len() + 64;
        let Some(word) = text.get(at..end).filter(|word| word.starts_with(PREFIX)) else {
            continue;
        };
        found.extend(std::str::from_utf8(word).ok().and_then(|word| word.parse::<Digest>().ok()));
    }
    found
}

/// What the index says.
struct Index {
    /// What young entries name, and entries of a form that is not known here.
    young: BTreeSet<Digest>,
    /// Entries that are old enough to go, with their files.
    old: Vec<(PathBuf, Record)>,
}

impl Index {
    fn read(store: &ImageStore, options: &Options) -> Result<Self, StoreError> {
        let mut index = Self { young: BTreeSet::new(), old: Vec::new() };
        let directory = store.index_directory();
        for path in files(directory)? {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read(&path).map_err(at(&path))?;
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) if is_old(&path, options)? => index.old.push((path, record)),
                _ => index.young.extend(digests_in(&text)),
            }
        }
        // What belongs to images goes with them; anything else is somebody's list of names.
        for entry in fs::read_dir(directory).map_err(at(directory))?.flatten() {
            let own = ["rootfs", "referrers"].iter().any(|own| entry.file_name() == *own);
            if own || !entry.path().is_dir() {
                continue;
            }
            for path in files(&entry.path())? {
                index.young.extend(digests_in(&fs::read(&path).map_err(at(&path))?));
            }
        }
        Ok(index)
    }
}

/// All blobs that the roots are or lead to: what documents name, what refers to them, and the
/// filesystems that were made of them.
fn marked(store: &ImageStore, roots: BTreeSet<Digest>) -> Result<BTreeSet<Digest>, StoreError> {
    let mut live = BTreeSet::new();
    let mut ahead: Vec<Digest> = roots.into_iter().collect();
    while let Some(digest) = ahead.pop() {
        if !live.insert(digest) {
            continue;
        }
        let path = store.blob(&digest);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if length == 0 || length > MAX_DOCUMENT_BYTES {
            continue;
        }
        let text = fs::read(&path).map_err(at(&path))?;
        if text.first() != Some(&b'{') {
            continue;
        }
        ahead.extend(digests_in(&text));
        ahead.extend(store.noted_referrers(&digest)?);
        ahead.extend(store.get(&digest).map(|image| image.erofs_digest));
        let record = store.index_directory().join("rootfs").join(format!("{}.json", digest.hex()));
        ahead.extend(fs::read(record).map(|text| digests_in(&text)).unwrap_or_default());
    }
    Ok(live)
}

/// Takes an image out of the index, and what was said about it.
fn forget(
    store: &ImageStore,
    signing: &Signing,
    path: &Path,
    manifest: &Digest,
) -> Result<(), StoreError> {
    remove(path)?;
    store.forget_referrers(manifest)?;
    let name = format!("{}.json", manifest.hex());
    remove(&store.index_directory().join("rootfs").join(name))?;
    signing.forget_rootfs(manifest).map_err(at(store.index_directory()))
}

/// Removes the files of a directory whose names are digests that nobody needs.
fn sweep(
    directory: &Path,
    kind: Kind,
    live: &BTreeSet<Digest>,
    options: &Options,
    collected: &mut Collected,
) -> Result<(), StoreError> {
    for path in files(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What is no digest is for `image verify` to name.
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if live.contains(&digest) || !is_old(&path, options)? {
            collected.kept += 1;
            collected.kept_bytes += bytes;
            continue;
        }
        if !options.dry_run {
            remove(&path)?;
        }
        collected.removed.push(Removed { kind, name: None, digest, bytes });
    }
    Ok(())
}

/// The files of a directory by name; none where there is no directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(directory))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(directory))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_old(path: &Path, options: &Options) -> Result<bool, StoreError> {
    let modified = match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        modified => modified.map_err(at(path))?,
    };
    // What is dated ahead of the clock is young.
    Ok(options.now.duration_since(modified).is_ok_and(|age| age >= options.grace))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}
