//! Which manifest a registry had under a reference when it was last spoken to.
//!
//! It tells where a registry has a blob already, so that another repository can take it from there.
//! Nothing is decided by it: what a tag stands for is asked, or stands in the lock.

use std::fs;

use kiln_model::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{ImageStore, StoreError, at};
use crate::oci::reference::Reference;

/// A manifest that is in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The reference.
    pub reference: String,
    /// The manifest's digest.
    pub manifest: Digest,
}

impl ImageStore {
    /// Notes what a registry has under a reference.
    pub(crate) fn note_reference(
        &self,
        reference: &Reference,
        manifest: Digest,
    ) -> Result<(), StoreError> {
        let reference = reference.to_string();
        let name = format!("{}.json", Digest::of(reference.as_bytes()).hex());
        self.write_json(&self.index.join("references").join(name), &Known { reference, manifest })
    }

    /// All that is known of registries.
    pub fn known(&self) -> Result<Vec<Known>, StoreError> {
        let mut known = Vec::new();
        let directory = self.index.join("references");
        for entry in fs::read_dir(&directory).map_err(at(&directory))? {
            let path = entry.map_err(at(&directory))?.path();
            let text = fs::read(&path).map_err(at(&path))?;
            known.extend(serde_json::from_slice::<Known>(&text));
        }
        known.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(known)
    }
}
