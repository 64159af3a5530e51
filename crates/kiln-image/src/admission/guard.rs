//! What is checked of an image before each start.
//!
//! Every file that counts is read each time, since it may have been altered; only what follows
//! from its bytes alone (that a signature holds, that a secret key fits its name) is remembered,
//! by the digest of those bytes. So a check reads a few small files and computes nothing slow.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use kiln_model::trust::{Demands, PublicKey, Signer};

use super::because;
use crate::attest::artifact::Artifact;
use crate::attest::{AttestError, Kind, PAYLOAD_TYPE, statement};
use crate::sign::{
    Blocks, Derivation, Envelope, Revocation, Ring, RootfsError, SignError, Signing, What,
};
use crate::store::{ImageFiles, ImageStore, StoreError};

/// Why an image must not be started.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody has signed it.
    #[error("image {image} is not admitted: no signature says that its tests passed")]
    NotAdmitted {
        /// The image.
        image: Digest,
    },
    /// Somebody has, who does not count.
    #[error(
        "image {image} is not signed by a key that the stack trusts ({}): it is signed by {}",
        join(.trusted), join(.signed_by)
    )]
    NotTrusted {
        /// The image.
        image: Digest,
        /// Whose signatures would count.
        trusted: Vec<Signer>,
        /// Whose it has.
        signed_by: Vec<PublicKey>,
    },
    /// Whoever signed it does not count any more.
    #[error(
        "image {image} is signed by {key}, a key that was revoked on {at}{}",
        because(.reason.as_deref())
    )]
    SignerRevoked {
        /// The image.
        image: Digest,
        /// The key.
        key: PublicKey,
        /// When.
        at: Timestamp,
        /// Why.
        reason: Option<String>,
    },
    /// The image itself does not count any more.
    #[error("image {image} was revoked on {at}{}", because(.reason.as_deref()))]
    ImageRevoked {
        /// The image.
        image: Digest,
        /// When.
        at: Timestamp,
        /// Why.
        reason: Option<String>,
    },
    /// What says that it is admitted was altered.
    #[error("what admits image {image} was altered")]
    Altered {
        /// The image.
        image: Digest,
        /// What, and how it shows.
        source: AttestError,
    },
    /// Its filesystem is not known to be made by this root.
    #[error("the filesystem of image {image} is not one that this root has made of it")]
    Rootfs {
        /// The image.
        image: Digest,
        /// How it shows.
        source: RootfsError,
    },
    /// The keys can't be used.
    #[error("whether image {image} is admitted can't be said")]
    Keys {
        /// The image.
        image: Digest,
        /// Why.
        source: SignError,
    },
    /// The store can't be used, or a blob was altered.
    #[error("image {image} is not as it was built")]
    Store {
        /// The image.
        image: Digest,
        /// Why.
        source: StoreError,
    },
}

impl Refusal {
    /// The way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAdmitted { .. } => {
                "`kiln image build` tests and signs what a stack declares; for an image that was \
                 pulled, name its signer's key in `trust`"
            }
            Self::NotTrusted { .. } => {
                "name the signer's key in `trust`, or build the image here with `kiln image build`"
            }
            Self::SignerRevoked { .. } => {
                "`kiln image build` tests the image anew and signs it with the present key"
            }
            Self::ImageRevoked { .. } => {
                "apply a stack with another image; a revocation is not taken back"
            }
            Self::Altered { .. } | Self::Store { .. } => {
                "move the named file away; `kiln image build` makes the image anew"
            }
            Self::Rootfs { .. } => {
                "`kiln image build` or `kiln image pull` makes its filesystem anew"
            }
            Self::Keys { .. } => "`kiln image verify` shows what is wrong with the root's keys",
        }
    }
}

fn join<T: ToString>(parts: &[T]) -> String {
    if parts.is_empty() {
        return "nobody".to_owned();
    }
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Who has admitted an image.
#[derive(Debug, Default)]
pub struct Signatures {
    /// The keys whose signatures hold, revoked or not, trusted or not.
    pub keys: Vec<PublicKey>,
    /// What can't be used of what refers to the image.
    pub wrong: Vec<AttestError>,
}

/// An image that may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// The key that admits it.
    pub key: PublicKey,
    /// What the blocks of its filesystem measure, as this root has signed it; nothing in records of
    /// earlier versions.
    pub blocks: Option<Blocks>,
}

/// Checks images before they are started.
#[derive(Debug)]
pub struct Guard {
    store: ImageStore,
    signing: Signing,
    seen: Mutex<Seen>,
}

/// What follows from bytes that were seen, and the greatest counter of a ring.
#[derive(Debug, Default)]
struct Seen {
    /// The signers of admissions, by the digests of envelope and image.
    admissions: HashMap<(Digest, Digest), Vec<PublicKey>>,
    /// Records of filesystems and their signers, by their bytes.
    records: HashMap<Digest, (Derivation, PublicKey)>,
    /// The ring that was read last, by its bytes.
    ring: Option<(Digest, Ring)>,
}

impl Guard {
    /// A guard of a root's images.
    pub fn new(store: ImageStore, signing: Signing) -> Self {
        Self { store, signing, seen: Mutex::default() }
    }

    /// Refuses an image that a stack with these demands must not start: one that no signer of
    /// theirs has admitted, that is revoked, or whose filesystem this root has not made. What is
    /// in the filesystem is not read; see [`ImageStore::verify_image`]. The key that admits it.
    pub fn check(&self, image: &ImageFiles, demands: &Demands) -> Result<PublicKey, Refusal> {
        self.clear(image, demands).map(|cleared| cleared.key)
    }

    /// The same, with what is signed of the filesystem's blocks.
    pub fn clear(&self, image: &ImageFiles, demands: &Demands) -> Result<Cleared, Refusal> {
        let digest = image.digest;
        let keys = |source| Refusal::Keys { image: digest, source };
        let ring = self.ring().map_err(keys)?.ok_or(Refusal::NotAdmitted { image: digest })?;
        if let Some(Revocation { reason, at, .. }) = ring.revocation(What::Image(digest)) {
            let (at, reason) = (*at, reason.clone());
            return Err(Refusal::ImageRevoked { image: digest, at, reason });
        }
        let signatures =
            self.signatures(&digest).map_err(|source| Refusal::Store { image: digest, source })?;
        let key = trusted(digest, signatures, &ring, demands)?;
        let record = Derivation::of(image);
        let genuine = self.signing.check_rootfs_by(&ring, &record, |bytes| self.signed(bytes));
        let blocks = genuine.map_err(|source| Refusal::Rootfs { image: digest, source })?;
        Ok(Cleared { key, blocks })
    }

    /// Who has admitted an image.
    pub fn signatures(&self, manifest: &Digest) -> Result<Signatures, StoreError> {
        let mut signatures = Signatures::default();
        for artifact in self.store.noted_referrers(manifest)? {
            match self.signers(manifest, &artifact) {
                Ok(keys) => signatures.keys.extend(keys),
                Err(error) => signatures.wrong.push(error),
            }
        }
        signatures.keys.sort();
        signatures.keys.dedup();
        Ok(signatures)
    }

    /// The keys that have signed in this artifact that the image is admitted.
    fn signers(&self, manifest: &Digest, digest: &Digest) -> Result<Vec<PublicKey>, AttestError> {
        let Some(artifact) = Artifact::read(&self.store, digest)? else { return Ok(Vec::new()) };
        if artifact.artifact_type != Kind::Admission.media_type() {
            return Ok(Vec::new());
        }
        let form = |reason| AttestError::Form { artifact: *digest, subject: *manifest, reason };
        let [layer] = artifact.layers.as_slice() else {
            return Err(form("it has not one envelope"));
        };
        let bytes = self.store.read_blob(&layer.digest)?;
        let known = (layer.digest, *manifest);
        if let Some(keys) = self.seen().admissions.get(&known) {
            return Ok(keys.clone());
        }
        let envelope = Envelope::read(&bytes)
            .filter(|envelope| envelope.payload_type == PAYLOAD_TYPE)
            .ok_or_else(|| form("its envelope can't be read"))?;
        statement(&envelope, Kind::Admission, manifest).map_err(form)?;
        let keys = envelope.signers();
        if keys.is_empty() {
            return Err(form("no signature of it holds"));
        }
        self.seen().admissions.insert(known, keys.clone());
        Ok(keys)
    }

    /// The record of a filesystem, and its signer.
    fn signed(&self, bytes: &[u8]) -> Option<(Derivation, PublicKey)> {
        let digest = Digest::of(bytes);
        let known = self.seen().records.get(&digest).cloned();
        known.or_else(|| {
            let signed = Derivation::signed(bytes)?;
            self.seen().records.insert(digest, signed.clone());
            Some(signed)
        })
    }

    /// The ring as it is now; nothing where the root has not signed yet.
    pub fn ring(&self) -> Result<Option<Ring>, SignError> {
        let path = self.signing.ring_path();
        let last = self.seen().ring.clone();
        let Some(bytes) = self.signing.ring_bytes()? else {
            return match last {
                Some(_) => Err(SignError::NoRing { path }),
                None => Ok(None),
            };
        };
        let digest = Digest::of(&bytes);
        if let Some((known, ring)) = &last
            && *known == digest
        {
            return Ok(Some(ring.clone()));
        }
        let ring = self.signing.read_ring(&bytes)?;
        if let Some((_, seen)) = last
            && ring.counter <= seen.counter
        {
            return Err(SignError::Older { path, seen: seen.counter, found: ring.counter });
        }
        self.seen().ring = Some((digest, ring.clone()));
        Ok(Some(ring))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Each entry is put in whole: a panic elsewhere leaves none half made.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first key of an image's that a stack trusts and that is not revoked, or why there is none.
fn trusted(
    image: Digest,
    signatures: Signatures,
    ring: &Ring,
    demands: &Demands,
) -> Result<PublicKey, Refusal> {
    let signers = demands.signers();
    let Signatures { keys, mut wrong } = signatures;
    let of_them = |key: &PublicKey| signers.iter().any(|signer| ring.is_of(signer, key));
    let mut revoked = None;
    for key in keys.iter().filter(|key| of_them(key)) {
        match ring.revocation(What::Key(*key)) {
            None => return Ok(*key),
            Some(revocation) => revoked = Some((*key, revocation)),
        }
    }
    if let Some((key, Revocation { at, reason, .. })) = revoked {
        return Err(Refusal::SignerRevoked { image, key, at: *at, reason: reason.clone() });
    }
    if !wrong.is_empty() {
        return Err(Refusal::Altered { image, source: wrong.swap_remove(0) });
    }
    if keys.is_empty() {
        return Err(Refusal::NotAdmitted { image });
    }
    let trusted = signers.into_iter().collect();
    Err(Refusal::NotTrusted { image, trusted, signed_by: keys })
}
