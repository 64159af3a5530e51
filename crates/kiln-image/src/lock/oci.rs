//! The lock's list of images in registries: which manifest a reference stands for.

use std::collections::BTreeSet;

use kiln_model::canonical::{self, EncodeError};
use kiln_model::digest::Digest;
use kiln_model::spec::image::{Base, Recipe};
use serde::{Deserialize, Serialize};

use super::{Lock, Unlocked};
use crate::oci::reference::{InvalidReference, Reference};
use crate::oci::registry::{Registry, RegistryError};
use crate::progress::{Event, Progress};

/// A reference that can't be locked.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It is none.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The registry does not give it.
    #[error("oci(\"{reference}\") can't be looked up")]
    Registry {
        /// The reference.
        reference: String,
        /// Why.
        source: Box<RegistryError>,
    },
}

/// A reference as the lock has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pinned {
    /// As the recipe has it.
    reference: String,
    /// The architecture, as Debian calls it.
    architecture: String,
    /// The manifest's digest.
    manifest: Digest,
}

/// The reference that a recipe starts from, if it starts from one.
fn reference(recipe: &Recipe) -> Option<&str> {
    match &recipe.base {
        Base::Oci { reference } => Some(reference),
        _ => None,
    }
}

impl Lock {
    /// The manifest that a reference is locked to.
    pub fn manifest(&self, reference: &str, architecture: &str) -> Option<Digest> {
        self.references.get(&(reference.to_owned(), architecture.to_owned())).copied()
    }

    /// Adds the references of recipes that have no entry; with `upgrade`, asks for all of them anew.
    /// On an error the lock stays as it was.
    pub fn pin<'a>(
        &mut self,
        recipes: impl IntoIterator<Item = &'a Recipe>,
        registry: &Registry,
        architecture: &str,
        upgrade: bool,
        progress: &dyn Progress,
    ) -> Result<(), PinError> {
        let wanted: BTreeSet<&str> = recipes.into_iter().filter_map(reference).collect();
        let mut found = Vec::new();
        for text in wanted {
            if !upgrade && self.manifest(text, architecture).is_some() {
                continue;
            }
            progress.event(Event::Lookup { reference: text });
            let reference: Reference = text.parse()?;
            let fetched = registry.resolve(&reference, architecture).map_err(|source| {
                PinError::Registry { reference: text.to_owned(), source: Box::new(source) }
            })?;
            found.push(((text.to_owned(), architecture.to_owned()), fetched.digest));
        }
        self.references.extend(found);
        Ok(())
    }

    /// The locked inputs of a recipe that starts from a registry's image: SHA-256 over the domain
    /// `kiln.inputs.oci.v1`, a line feed, and the canonical JSON of an object with the `manifest`.
    pub(super) fn oci_inputs(
        &self,
        reference: &str,
        architecture: &str,
    ) -> Result<Digest, Unlocked> {
        #[derive(Serialize)]
        struct Inputs {
            manifest: Digest,
        }
        let Some(manifest) = self.manifest(reference, architecture) else {
            return Err(if self.is_empty() {
                Unlocked::NoLock
            } else {
                Unlocked::NoReference(reference.to_owned())
            });
        };
        let digest: Result<Digest, EncodeError> =
            canonical::digest("kiln.inputs.oci.v1", &Inputs { manifest }, &|_| None);
        Ok(digest.expect("a digest has a canonical encoding"))
    }

    /// Drops the references that none of the recipes starts from any more.
    pub(super) fn retain_references<'a>(&mut self, recipes: impl Iterator<Item = &'a Recipe>) {
        let wanted: BTreeSet<&str> = recipes.filter_map(reference).collect();
        self.references.retain(|(reference, _), _| wanted.contains(reference.as_str()));
    }

    /// The references as the file has them.
    pub(super) fn pinned(&self) -> Vec<Pinned> {
        let pinned = |((reference, architecture), manifest): (&(String, String), &Digest)| Pinned {
            reference: reference.clone(),
            architecture: architecture.clone(),
            manifest: *manifest,
        };
        self.references.iter().map(pinned).collect()
    }
}

impl From<Pinned> for ((String, String), Digest) {
    fn from(Pinned { reference, architecture, manifest }: Pinned) -> Self {
        ((reference, architecture), manifest)
    }
}
