//! What is said, and signed, about an image.
//!
//! Each statement is an in-toto Statement (<https://github.com/in-toto/attestation>, version 1) in
//! a DSSE envelope, kept as an OCI artifact whose `subject` is the image's manifest (image
//! specification 1.1), so that it travels with the image: push and pull carry referrers.
//!
//! | kind | predicate |
//! | --- | --- |
//! | [`Kind::Sbom`] | SPDX 2.3 ([`spdx`]) |
//! | [`Kind::Provenance`] | SLSA provenance 1 ([`provenance`]) |
//! | [`Kind::Admission`] | Kiln's own ([`crate::admission`]) |

pub mod artifact;
mod licence;
pub mod materials;
pub mod provenance;
pub mod spdx;
mod status;

use std::collections::BTreeMap;

use kiln_model::digest::Digest;
use kiln_model::trust::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sign::{Envelope, SecretKey};
use crate::store::{ImageStore, StoreError};

use artifact::Artifact;

/// What the payload of an envelope is.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The version of statements.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Which software is in the image.
    Sbom,
    /// How the image was built.
    Provenance,
    /// That the image passed its tests and may be started.
    Admission,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Sbom, Self::Provenance, Self::Admission];

    /// The type of the predicate.
    pub const fn predicate_type(self) -> &'static str {
        match self {
            Self::Sbom => "https://spdx.dev/Document/v2.3",
            Self::Provenance => "https://slsa.dev/provenance/v1",
            Self::Admission => "urn:kiln:admission:v1",
        }
    }

    /// The media type of an envelope with such a statement, as in-toto's storage convention has
    /// it; also the type of the artifact that holds it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Sbom => "application/vnd.in-toto.spdx+dsse",
            Self::Provenance => "application/vnd.in-toto.provenance+dsse",
            Self::Admission => "application/vnd.in-toto.kiln-admission+dsse",
        }
    }

    /// The kind of an artifact's type.
    fn of(artifact_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.media_type() == artifact_type)
    }
}

/// An image as statements name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The image's name.
    pub name: &'a str,
    /// Its manifest's digest.
    pub manifest: Digest,
}

/// An in-toto Statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// Always that of version 1.
    #[serde(rename = "_type")]
    pub kind: String,
    /// What it is about.
    pub subject: Vec<Resource>,
    /// What is said, by its type.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Value,
}

/// Something by its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// What it is called.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it is, or what it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Its checksums by algorithm, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
}

impl Resource {
    /// Something by its SHA-256.
    pub fn new(name: &str, uri: &str, sha256: &Digest) -> Self {
        let digest = [("sha256".to_owned(), sha256.hex())].into();
        Self { name: name.to_owned(), uri: uri.to_owned(), digest }
    }
}

impl Statement {
    /// A statement about one image.
    pub fn new(kind: Kind, subject: Subject<'_>, predicate: Value) -> Self {
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: vec![Resource::new(subject.name, "", &subject.manifest)],
            predicate_type: kind.predicate_type().to_owned(),
            predicate,
        }
    }

    /// Whether it is about this image: in-toto matches subjects by digest alone.
    pub fn is_about(&self, manifest: &Digest) -> bool {
        let hex = manifest.hex();
        self.subject.iter().any(|subject| subject.digest.get("sha256") == Some(&hex))
    }
}

/// A statement about an image, and who signed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attestation {
    /// The artifact's manifest.
    pub artifact: Digest,
    /// What it is about.
    pub kind: Kind,
    /// What is said.
    pub predicate: Value,
    /// The keys whose signatures hold; at least one.
    pub signers: Vec<PublicKey>,
}

/// Why an artifact says nothing.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// A blob of it is gone or altered.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not an artifact with one envelope about the image.
    #[error("artifact {artifact} is not a statement about image {subject}: {reason}")]
    Form {
        /// The artifact's manifest.
        artifact: Digest,
        /// The image.
        subject: Digest,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Signs a statement about an image and attaches it. The digest of its artifact.
pub fn attach(
    store: &ImageStore,
    key: &SecretKey,
    kind: Kind,
    subject: Subject<'_>,
    predicate: Value,
) -> Result<Digest, StoreError> {
    let statement = Statement::new(kind, subject, predicate);
    let payload = serde_json::to_vec(&statement).expect("a statement is JSON");
    let envelope = Envelope::sign(key, PAYLOAD_TYPE, payload).to_bytes();
    Artifact::publish(store, kind, &subject.manifest, &envelope)
}

/// Every statement about an image, of one kind or of all, with what of them can't be used. What
/// was attached by others and is of no kind that is known here is left out.
pub fn attestations(
    store: &ImageStore,
    manifest: &Digest,
    only: Option<Kind>,
) -> Result<(Vec<Attestation>, Vec<AttestError>), StoreError> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for artifact in store.noted_referrers(manifest)? {
        match read(store, manifest, &artifact, only) {
            Ok(attestation) => found.extend(attestation),
            Err(error) => wrong.push(error),
        }
    }
    Ok((found, wrong))
}

fn read(
    store: &ImageStore,
    manifest: &Digest,
    artifact: &Digest,
    only: Option<Kind>,
) -> Result<Option<Attestation>, AttestError> {
    let form = |reason| AttestError::Form { artifact: *artifact, subject: *manifest, reason };
    let Some(read) = Artifact::read(store, artifact)? else { return Ok(None) };
    if read.subject.digest != *manifest {
        return Err(form("it refers to another image"));
    }
    let kind = Kind::of(&read.artifact_type).filter(|kind| only.is_none_or(|only| only == *kind));
    let Some(kind) = kind else { return Ok(None) };
    let [layer] = read.layers.as_slice() else { return Err(form("it has not one envelope")) };
    let envelope = Envelope::read(&store.read_blob(&layer.digest)?)
        .filter(|envelope| envelope.payload_type == PAYLOAD_TYPE)
        .ok_or_else(|| form("its envelope can't be read"))?;
    let signers = envelope.signers();
    let statement = statement(&envelope, kind, manifest).map_err(form)?;
    if signers.is_empty() {
        return Err(form("no signature of it holds"));
    }
    let predicate = statement.predicate;
    Ok(Some(Attestation { artifact: *artifact, kind, predicate, signers }))
}

/// The statement in an envelope, if it is of this kind and about this image.
pub(crate) fn statement(
    envelope: &Envelope,
    kind: Kind,
    manifest: &Digest,
) -> Result<Statement, &'static str> {
    let statement: Statement =
        serde_json::from_slice(&envelope.payload).map_err(|_| "its statement can't be read")?;
    if statement.kind != STATEMENT_TYPE || statement.predicate_type != kind.predicate_type() {
        return Err("its statement is of another type");
    }
    if !statement.is_about(manifest) {
        return Err("its statement is about another image");
    }
    Ok(statement)
}
