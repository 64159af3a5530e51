//! Verifying all that a root keeps of images: every byte of each blob, the parts of each image,
//! each signature, each record of a filesystem, and the keys. Nothing is repaired or removed.

use std::fs;
use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;

use crate::attest::{AttestError, attestations};
use crate::erofs::read::{Image, ReadError};
use crate::sign::{Derivation, Ring, RootfsError, SignError, Signing};
use crate::store::{ImageStore, Problem, Record, StoreError};

/// Something that is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A blob, a stray file, or an image with parts that are gone.
    #[error("{0}")]
    Blob(Problem),
    /// What is said about an image does not hold.
    #[error("image {image}: what is said about it does not hold")]
    Attestation {
        /// The image's name.
        image: String,
        /// What is wrong.
        source: AttestError,
    },
    /// It is not known that this root has made the filesystem of an image.
    #[error("image {image}: its filesystem is not vouched for")]
    Rootfs {
        /// The image's name.
        image: String,
        /// What is wrong.
        source: RootfsError,
    },
    /// A filesystem is as its digest says, and still none that can be read.
    #[error("image {image}: its filesystem can't be used")]
    Filesystem {
        /// The image's name.
        image: String,
        /// What is wrong.
        source: ReadError,
    },
    /// A key or the ring of keys.
    #[error(transparent)]
    Key(SignError),
    /// A file of the index that can't be read.
    #[error("{path} was altered; move it away and build again")]
    Index {
        /// The file.
        path: PathBuf,
    },
}

/// Everything that is wrong with the images of a root, in a stable order.
pub fn everything(store: &ImageStore, signing: &Signing) -> Result<Vec<Fault>, StoreError> {
    let mut faults: Vec<Fault> = store.verify()?.into_iter().map(Fault::Blob).collect();
    faults.extend(index(store)?);
    let ring = keys(signing, &mut faults);
    let mut records = store.list()?;
    records.dedup_by_key(|record| record.digest);
    for record in &records {
        faults.extend(said(store, signing, ring.as_ref(), record)?);
    }
    Ok(faults)
}

/// Everything that is wrong with one image: its blobs are read in full.
pub fn image(
    store: &ImageStore,
    signing: &Signing,
    record: &Record,
) -> Result<Vec<Fault>, StoreError> {
    let mut faults = Vec::new();
    if let Err(error) = store.verify_image(&record.digest) {
        let image = Some(record.name.clone());
        faults.push(Fault::Blob(Problem::Wrong { image, error }));
    }
    let ring = keys(signing, &mut faults);
    faults.extend(said(store, signing, ring.as_ref(), record)?);
    Ok(faults)
}

/// What is wrong with the keys; the ring, where it can be used.
fn keys(signing: &Signing, faults: &mut Vec<Fault>) -> Option<Ring> {
    faults.extend(signing.verify().into_iter().map(Fault::Key));
    signing.ring().ok().flatten()
}

/// What is wrong with what is said about an image.
fn said(
    store: &ImageStore,
    signing: &Signing,
    ring: Option<&Ring>,
    record: &Record,
) -> Result<Vec<Fault>, StoreError> {
    let name = || record.name.clone();
    let (_, wrong) = attestations(store, &record.digest, None)?;
    let mut faults: Vec<Fault> =
        wrong.into_iter().map(|source| Fault::Attestation { image: name(), source }).collect();
    // An image whose parts are gone has been named already.
    let Ok(files) = store.get(&record.digest) else { return Ok(faults) };
    if let Err(source) = Image::open(&files.erofs) {
        faults.push(Fault::Filesystem { image: name(), source });
    }
    match ring.map(|ring| signing.check_rootfs(ring, &Derivation::of(&files))) {
        // An image that nobody admitted here need not have one.
        None | Some(Ok(_) | Err(RootfsError::Absent { .. })) => {}
        Some(Err(source)) => faults.push(Fault::Rootfs { image: name(), source }),
    }
    Ok(faults)
}

/// Files of the index that are no records, and records under another's name.
fn index(store: &ImageStore) -> Result<Vec<Fault>, StoreError> {
    let directory = store.index_directory();
    let failed = |path: PathBuf| move |source: io::Error| StoreError::Io { path, source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory.to_owned()))? {
        paths.push(entry.map_err(failed(directory.to_owned()))?.path());
    }
    paths.sort();
    let mut faults = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(named) = name.strip_suffix(".json") else { continue };
        let bytes = fs::read(&path).map_err(failed(path.clone()))?;
        let record: Option<Record> = serde_json::from_slice(&bytes).ok();
        let own = record.is_some_and(|record| is_named(&record.recipe, named));
        if !own {
            faults.push(Fault::Index { path });
        }
    }
    Ok(faults)
}

fn is_named(recipe: &Digest, file: &str) -> bool {
    file.split('.').next() == Some(recipe.hex().as_str())
}
