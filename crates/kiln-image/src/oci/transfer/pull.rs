//! From a registry to the store: blobs first, then the manifest, so that a manifest that is there has
//! all that it names.

use kiln_model::digest::Digest;

use super::{Meter, PARALLEL, TransferError};
use crate::oci::go_architecture;
use crate::oci::reference::Reference;
use crate::oci::registry::{Fetched, Registry};
use crate::parallel;
use crate::progress::{Event, Progress};
use crate::store::{Descriptor, ImageFiles, ImageStore, Record};

/// How far artifacts about artifacts are followed.
const MAX_REFERRER_DEPTH: usize = 3;
/// The most artifacts about one image that are fetched.
const MAX_REFERRERS: usize = 1000;

/// What is in the store now.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image, with its filesystem.
    pub image: ImageFiles,
    /// How the index lists it.
    pub record: Record,
    /// How many artifacts about it came along.
    pub referrers: usize,
}

impl ImageStore {
    /// Fetches an image and all artifacts about it, makes its filesystem, and lists it under `name`.
    /// It is not thereby admitted: that is for whoever checks what is signed.
    pub fn pull(
        &self,
        registry: &Registry,
        reference: &Reference,
        name: &str,
        architecture: &str,
        progress: &dyn Progress,
    ) -> Result<Pulled, TransferError> {
        let fetched = registry.resolve(reference, architecture)?;
        self.fetch_image(registry, reference, &fetched, progress)?;
        self.check_platform(&reference.to_string(), &fetched.digest, architecture)?;
        let referrers = self.fetch_referrers(registry, reference, &fetched.digest)?;
        self.note_referrers(&fetched.digest)?;
        let image = self.laid(&fetched.digest, progress)?;
        let reference = Some(reference.to_string());
        let record = Record::pulled(name, fetched.digest, image.size_bytes, reference);
        self.note_pulled(&record)?;
        progress.event(Event::Done { size_bytes: image.size_bytes, cached: false });
        Ok(Pulled { image, record, referrers })
    }

    /// Fetches an image by the digest that the lock names, unless it is here.
    pub(crate) fn fetch_locked(
        &self,
        registry: &Registry,
        reference: &Reference,
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<(), TransferError> {
        if self.holds(digest) {
            return Ok(());
        }
        let fetched = registry.manifest(reference, digest)?;
        self.fetch_image(registry, reference, &fetched, progress)
    }

    /// Refuses an image for another machine.
    pub(crate) fn check_platform(
        &self,
        shown: &str,
        image: &Digest,
        architecture: &str,
    ) -> Result<(), TransferError> {
        let config = self.config(image, &self.manifest(image)?)?;
        let wanted = go_architecture(architecture);
        if config.os == "linux" && config.architecture == wanted {
            return Ok(());
        }
        let found = format!("{}/{}", config.os, config.architecture);
        let (reference, wanted) = (shown.to_owned(), format!("linux/{wanted}"));
        Err(TransferError::Platform { reference, found, wanted })
    }

    /// The image with its filesystem, which is made if it is not there.
    pub(crate) fn laid(
        &self,
        image: &Digest,
        progress: &dyn Progress,
    ) -> Result<ImageFiles, TransferError> {
        match self.verify_rootfs(image) {
            Ok(image) => Ok(image),
            Err(_) => Ok(self.derive(image, progress)?),
        }
    }

    fn fetch_image(
        &self,
        registry: &Registry,
        reference: &Reference,
        fetched: &Fetched,
        progress: &dyn Progress,
    ) -> Result<(), TransferError> {
        let blobs: Vec<Descriptor> = fetched.manifest.blobs().into_iter().cloned().collect();
        self.check_room(&blobs)?;
        let meter = Meter::new(progress, false, &blobs);
        parallel::each(&blobs, PARALLEL, |blob| {
            self.fetch_blob(registry, reference, blob, &|more| meter.moved(more))?;
            meter.blob_done();
            Ok::<(), TransferError>(())
        })?;
        self.publish_bytes(&fetched.bytes)?;
        self.note_reference(reference, fetched.digest)?;
        Ok(())
    }

    /// Refuses what does not fit on the disk, before any of it is fetched. What is made of it needs
    /// room too, of which nobody knows before.
    fn check_room(&self, blobs: &[Descriptor]) -> Result<(), TransferError> {
        let missing = blobs.iter().filter(|blob| !self.has(blob));
        let needed: u64 = missing.map(|blob| blob.size - self.arrived(blob)).sum();
        let (path, free) = self.free_bytes();
        match free {
            Some(free) if needed > free => Err(TransferError::NoRoom { path, needed, free }),
            _ => Ok(()),
        }
    }

    fn fetch_blob(
        &self,
        registry: &Registry,
        reference: &Reference,
        blob: &Descriptor,
        arrived: &dyn Fn(i64),
    ) -> Result<(), TransferError> {
        let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
        if self.verify_blob(&blob.digest).is_ok() {
            arrived(size);
            return Ok(());
        }
        let arriving = self.arriving(&blob.digest)?;
        // Whoever held it before may have finished it.
        if self.verify_blob(&blob.digest).is_ok() {
            // The file is a new and empty one.
            let _ = std::fs::remove_file(&arriving.path);
            arrived(size);
            return Ok(());
        }
        if let Err(error) = registry.download(reference, blob, &arriving.path, arrived) {
            if error.is_full_disk() {
                // A later attempt would go on with it; but the room is worth more now.
                let _ = std::fs::remove_file(&arriving.path);
            }
            return Err(error.into());
        }
        Ok(self.publish_file(&arriving.path, &blob.digest)?)
    }

    /// Fetches all artifacts about an image, and those about them.
    fn fetch_referrers(
        &self,
        registry: &Registry,
        reference: &Reference,
        image: &Digest,
    ) -> Result<usize, TransferError> {
        let (mut found, mut subjects) = (Vec::new(), vec![*image]);
        for _ in 0..MAX_REFERRER_DEPTH {
            let mut next = Vec::new();
            for subject in subjects {
                for artifact in registry.referrers(reference, &subject)? {
                    if found.len() < MAX_REFERRERS && !found.contains(&artifact.digest) {
                        found.push(artifact.digest);
                        next.push(artifact.digest);
                        let fetched = registry.manifest(reference, &artifact.digest)?;
                        for blob in fetched.manifest.blobs() {
                            self.fetch_blob(registry, reference, blob, &|_| ())?;
                        }
                        self.publish_bytes(&fetched.bytes)?;
                    }
                }
            }
            subjects = next;
        }
        Ok(found.len())
    }
}
