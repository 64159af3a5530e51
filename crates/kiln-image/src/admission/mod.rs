//! Admission: an image whose tests all passed is signed, and only then may it be started.
//!
//! The statement has the type `urn:kiln:admission:v1`. It names the image by its manifest's
//! digest and says what it was made of and by what, which tests passed under which policy, and
//! which filesystem was made of it. Beside it stand a bill of materials and the provenance, signed
//! by the same key ([`crate::attest`]). [`Guard`] checks all of it before each start.

mod guard;

use kiln_model::canonical::{self, EncodeError};
use kiln_model::digest::Digest;
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::spec::image::{Check, ImageTest, Recipe};
use kiln_model::trust::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attest::materials::Materials;
use crate::attest::provenance::{self, Build, builder};
use crate::attest::{self, Kind, Subject, attestations, spdx};
use crate::build::Built;
use crate::erofs::read::ReadError;
use crate::lock::Lock;
use crate::sign::{Derivation, Ring, SignError, Signing};
use crate::store::{ImageFiles, ImageStore, StoreError};

pub use guard::{Cleared, Guard, Refusal, Signatures};

/// A test that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// What it is called.
    pub name: String,
    /// What held.
    pub checks: Vec<Check>,
    /// How long it took.
    #[serde(rename = "milliseconds")]
    pub time: Millis,
}

/// What is signed of an image when it is admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admission {
    /// When, in RFC 3339.
    pub admitted_at: String,
    /// The digest of recipe and locked inputs.
    pub component: Digest,
    /// What built it, with its version.
    pub builder: Value,
    /// The filesystem that was made of it.
    pub rootfs: RootfsOf,
    /// Whether the same lock gives the same bytes: no step reached the network.
    pub reproducible: bool,
    /// What was tested.
    pub tests: Tests,
}

/// A filesystem, by digest and length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsOf {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// The tests of an image, all of which passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// The digest of what was asked for; see [`policy_digest`].
    pub policy: Digest,
    /// What passed.
    pub passed: Vec<Passed>,
}

/// An image that is to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What was built.
    pub built: &'a Built,
    /// Of which recipe.
    pub recipe: &'a Recipe,
    /// With which lock.
    pub lock: &'a Lock,
    /// For which architecture, as Debian calls it.
    pub architecture: &'a str,
    /// The tests that it must have passed.
    pub tests: &'a [ImageTest],
}

/// An image that can't be admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A test has not passed.
    #[error("image {name} is not admitted: its test {test:?} has not passed")]
    NotPassed {
        /// The image's name.
        name: String,
        /// The test's name.
        test: String,
    },
    /// It was revoked.
    #[error(
        "image {name} ({digest}) was revoked{}; change its recipe, so that another is built",
        because(.reason.as_deref())
    )]
    Revoked {
        /// The image's name.
        name: String,
        /// Its digest.
        digest: Digest,
        /// Why.
        reason: Option<String>,
    },
    /// The tests have no digest.
    #[error("the tests of image {name} can't be written down")]
    Encode {
        /// The image's name.
        name: String,
        /// Why.
        source: EncodeError,
    },
    /// The filesystem can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The keys can't be used.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A reason, to be put behind a statement.
pub(crate) fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
}

/// The digest of tests as they were asked for: equal tests need not run again.
pub fn policy_digest(tests: &[ImageTest]) -> Result<Digest, EncodeError> {
    canonical::digest("kiln.tests.v1", &tests, &|_| None)
}

/// Whether an image that was built is admitted already, by an own key that still counts, after
/// just these tests: then they need not run again. The key.
pub fn admitted(
    store: &ImageStore,
    signing: &Signing,
    built: &Built,
    tests: &[ImageTest],
) -> Result<Option<PublicKey>, AdmitError> {
    let name = || built.record.name.clone();
    let policy =
        policy_digest(tests).map_err(|source| AdmitError::Encode { name: name(), source })?;
    let Some(ring) = signing.ring()? else { return Ok(None) };
    refuse_revoked(&ring, built)?;
    if signing.check_rootfs(&ring, &Derivation::of(&built.image)).is_err() {
        return Ok(None);
    }
    let (found, _) = attestations(store, &built.record.digest, Some(Kind::Admission))?;
    let same = found.iter().find_map(|attestation| {
        let admission: Admission = serde_json::from_value(attestation.predicate.clone()).ok()?;
        let same = admission.tests.policy == policy
            && admission.component == built.record.recipe
            && admission.rootfs.digest == built.image.erofs_digest;
        attestation.signers.iter().copied().find(|key| same && ring.is_own(key))
    });
    Ok(same)
}

/// Whether this root has admitted an image as what other recipes make, and not as what its own
/// does: then the index, which says what was built of which recipe, is not as this root has
/// written it.
pub fn is_anothers(
    store: &ImageStore,
    signing: &Signing,
    built: &Built,
) -> Result<bool, AdmitError> {
    let Some(ring) = signing.ring()? else { return Ok(false) };
    let (found, _) = attestations(store, &built.record.digest, Some(Kind::Admission))?;
    let own = found.iter().filter(|a| a.signers.iter().any(|key| ring.is_own(key)));
    let recipes: Vec<Digest> = own
        .filter_map(|a| serde_json::from_value::<Admission>(a.predicate.clone()).ok())
        .map(|admission| admission.component)
        .collect();
    Ok(!recipes.is_empty() && !recipes.contains(&built.record.recipe))
}

/// Admits an image: signs, with the root's current key (made at first use), that its tests
/// passed, what it consists of and how it was built. One that is admitted after the same tests
/// is not signed again. The key whose signature admits it.
pub fn admit(
    store: &ImageStore,
    signing: &Signing,
    candidate: &Candidate<'_>,
    passed: &[Passed],
    now: Timestamp,
) -> Result<PublicKey, AdmitError> {
    let Candidate { built, tests, .. } = *candidate;
    let record = &built.record;
    let has_passed = |test: &&ImageTest| {
        !passed.iter().any(|passed| passed.name == test.name && passed.checks == test.checks)
    };
    if let Some(test) = tests.iter().find(has_passed) {
        let (name, test) = (record.name.clone(), test.name.clone());
        return Err(AdmitError::NotPassed { name, test });
    }
    if let Some(key) = admitted(store, signing, built, tests)? {
        return Ok(key);
    }
    let key = signing.current()?;
    vouch(signing, &built.image)?;
    let subject = Subject { name: &record.name, manifest: record.digest };
    let materials = Materials::of(candidate.recipe, candidate.lock, candidate.architecture);
    let sbom = spdx::document(subject, &materials, &built.image.erofs)?;
    let provenance = provenance::predicate(&build(candidate), &materials);
    let admission = admission(candidate, passed, now)?;
    // The admission last: an image that is admitted has the others too.
    for (kind, predicate) in
        [(Kind::Sbom, sbom), (Kind::Provenance, provenance), (Kind::Admission, admission)]
    {
        attest::attach(store, &key, kind, subject, predicate)?;
    }
    Ok(key.public())
}

/// Signs that this root has made the filesystem of an image, with what its blocks measure: it is read
/// once, in full. Nothing if that is signed already.
pub fn vouch(signing: &Signing, image: &ImageFiles) -> Result<(), AdmitError> {
    let ring = signing.ring()?;
    let signed = ring.map(|ring| signing.check_rootfs(&ring, &Derivation::of(image)));
    if matches!(signed, Some(Ok(Some(_)))) {
        return Ok(());
    }
    Ok(signing.vouch_rootfs(&Derivation::measured(image)?)?)
}

fn build<'a>(candidate: &Candidate<'a>) -> Build<'a> {
    Build {
        recipe: candidate.recipe,
        component: candidate.built.record.recipe,
        architecture: candidate.architecture,
        builder: candidate.built.record.builder,
    }
}

fn admission(
    candidate: &Candidate<'_>,
    passed: &[Passed],
    now: Timestamp,
) -> Result<Value, AdmitError> {
    let record = &candidate.built.record;
    let policy = policy_digest(candidate.tests)
        .map_err(|source| AdmitError::Encode { name: record.name.clone(), source })?;
    let admission = Admission {
        admitted_at: now.to_string(),
        component: record.recipe,
        builder: builder(record.builder),
        rootfs: RootfsOf {
            digest: candidate.built.image.erofs_digest,
            size: candidate.built.image.size_bytes,
        },
        reproducible: !candidate.recipe.is_open(),
        tests: Tests { policy, passed: passed.to_vec() },
    };
    Ok(serde_json::to_value(admission).expect("digests, numbers and texts are JSON"))
}

fn refuse_revoked(ring: &Ring, built: &Built) -> Result<(), AdmitError> {
    let record = &built.record;
    match ring.revocation(crate::sign::What::Image(record.digest)) {
        None => Ok(()),
        Some(revocation) => Err(AdmitError::Revoked {
            name: record.name.clone(),
            digest: record.digest,
            reason: revocation.reason.clone(),
        }),
    }
}
