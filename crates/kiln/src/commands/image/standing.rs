//! What an image's signatures are worth to the stack at hand.

use kiln_daemon::prepare::Draft;
use kiln_image::admission::{Admission, Guard};
use kiln_image::attest::{Attestation, Kind, attestations};
use kiln_image::sign::{Signing, What};
use kiln_image::store::{ImageFiles, ImageStore, StoreError};
use kiln_model::digest::Digest;
use kiln_model::trust::{Demands, PublicKey};

use crate::cli::Variables;
use crate::context::Context;
use crate::error::CommandError;

/// Says of images whether they may be started.
pub(super) struct Judge {
    store: ImageStore,
    guard: Guard,
    demands: Demands,
}

/// Whether an image may be started, and who says so.
pub(super) struct Standing {
    /// Whether it may.
    pub(super) admitted: bool,
    /// The key that admits it; of an image that is not admitted, some key that has signed it.
    pub(super) signed_by: Option<PublicKey>,
    /// Why it may not.
    pub(super) because: Option<String>,
}

impl Judge {
    /// Judges as the stack in the directory demands; where there is none, as one without demands.
    pub(super) fn new(context: &Context, store: &ImageStore) -> Self {
        let demands = if context.has_files() {
            let draft = Draft::new(&context.source(&Variables::default()), None);
            draft.map(|draft| draft.demands().clone()).unwrap_or_default()
        } else {
            Demands::default()
        };
        let guard = Guard::new(store.clone(), Signing::of_root(context.root.path()));
        Self { store: store.clone(), guard, demands }
    }

    /// What an image of the store is worth.
    pub(super) fn of(&self, digest: &Digest) -> Standing {
        match self.store.get(digest) {
            Ok(files) => self.of_files(&files),
            Err(error) => {
                Standing { admitted: false, signed_by: None, because: Some(super::chain(&error)) }
            }
        }
    }

    fn of_files(&self, files: &ImageFiles) -> Standing {
        match self.guard.check(files, &self.demands) {
            Ok(key) => Standing { admitted: true, signed_by: Some(key), because: None },
            Err(refusal) => {
                let signatures = self.guard.signatures(&files.digest).unwrap_or_default();
                let signed_by = signatures.keys.first().copied();
                let because = Some(super::chain(&refusal));
                Standing { admitted: false, signed_by, because }
            }
        }
    }

    /// The newest statement of a kind about an image whose signer the stack trusts.
    pub(super) fn trusted(
        &self,
        digest: &Digest,
        kind: Kind,
    ) -> Result<Option<Attestation>, CommandError> {
        let ring = self.guard.ring().map_err(|e| CommandError::of(&e))?;
        let Some(ring) = ring else { return Ok(None) };
        let signers = self.demands.signers();
        let counts = |key: &PublicKey| {
            ring.revocation(What::Key(*key)).is_none()
                && signers.iter().any(|signer| ring.is_of(signer, key))
        };
        let found = attestations(&self.store, digest, Some(kind));
        let (found, _) = found.map_err(|e: StoreError| CommandError::of(&e))?;
        let trusted = found.into_iter().filter(|one| one.signers.iter().any(counts));
        Ok(trusted.max_by_key(|one| {
            one.predicate.get("admittedAt").and_then(|at| at.as_str()).map(str::to_owned)
        }))
    }

    /// What was signed of an image when it was admitted.
    pub(super) fn admission(&self, digest: &Digest) -> Result<Option<Admission>, CommandError> {
        let found = self.trusted(digest, Kind::Admission)?;
        Ok(found.and_then(|found| serde_json::from_value(found.predicate).ok()))
    }

    /// How many packages an image has, as its bill of materials says.
    pub(super) fn packages(&self, digest: &Digest) -> Result<Option<usize>, CommandError> {
        let found = self.trusted(digest, Kind::Sbom)?;
        let is_package = |item: &&serde_json::Value| item.get("externalRefs").is_some();
        Ok(found.map(|sbom| {
            let items = sbom.predicate.get("packages").and_then(|items| items.as_array());
            items.map_or(0, |items| items.iter().filter(is_package).count())
        }))
    }
}
