//! The index: which images there are, and what they are called.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{ImageStore, StoreError, at};

/// What was built for one component, or pulled, as the index keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The image's name when it was built, or the one that it was pulled under.
    pub name: String,
    /// The digest of the image as a component: of its recipe and locked inputs. An image that was
    /// pulled has no recipe and stands here by its own digest.
    pub recipe: Digest,
    /// The digest of what was built: the manifest's.
    pub digest: Digest,
    /// The length of the filesystem in bytes.
    pub size: u64,
    /// Which version of the builder made it; 0 where another program did.
    pub builder: u32,
    /// Where it was pulled from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

impl Record {
    /// The record of an image that came from elsewhere.
    pub fn pulled(name: &str, digest: Digest, size: u64, reference: Option<String>) -> Self {
        Self { name: name.to_owned(), recipe: digest, digest, size, builder: 0, reference }
    }
}

impl ImageStore {
    /// What was built for a component, if it is known and still in the store.
    pub fn find(&self, recipe: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.index.join(format!("{}.json", recipe.hex()));
        let record = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Record>(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&path)(error)),
        };
        // A record that can't be read, or whose image has gone, only means to build again.
        Ok(record.filter(|record| record.recipe == *recipe && self.get(&record.digest).is_ok()))
    }

    /// All images that were built here or pulled, by name and digest.
    pub fn list(&self) -> Result<Vec<Record>, StoreError> {
        let mut records: Vec<Record> = self.records()?.into_iter().map(|(_, r)| r).collect();
        records.sort_by(|a, b| (&a.name, a.recipe).cmp(&(&b.name, b.recipe)));
        Ok(records)
    }

    /// All records with their files.
    fn records(&self) -> Result<Vec<(PathBuf, Record)>, StoreError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.index).map_err(at(&self.index))? {
            let path = entry.map_err(at(&self.index))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = match fs::read(&path) {
                    Ok(text) => text,
                    // Another process has just taken it out of the list.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(at(&path)(error)),
                };
                records.extend(serde_json::from_slice(&text).ok().map(|record| (path, record)));
            }
        }
        Ok(records)
    }

    /// Notes what was built for a component.
    pub(crate) fn note(&self, record: &Record) -> Result<(), StoreError> {
        self.write_json(&self.index.join(format!("{}.json", record.recipe.hex())), record)
    }

    /// Notes that an image of another name has the same recipe. Nothing if that is known.
    pub(crate) fn note_other_name(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.index.join(format!("{}.{}.json", record.recipe.hex(), record.name));
        let known = fs::read(&path).ok();
        let known = known.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        if known.as_ref() == Some(record) { Ok(()) } else { self.write_json(&path, record) }
    }

    /// Notes an image that came from elsewhere. One that came from the same place, or under the same
    /// name, before is no longer listed; its blobs stay.
    pub(crate) fn note_pulled(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.index.join(format!("{}.{}.json", record.recipe.hex(), record.name));
        self.write_json(&path, record)?;
        for (other, old) in self.records()? {
            let pulled = old.builder == 0 && old.recipe == old.digest;
            let same_place = old.reference.is_some() && old.reference == record.reference;
            if other != path && pulled && (old.name == record.name || same_place) {
                match fs::remove_file(&other) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(at(&other)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Writes a document of the index; readers see the old one or the new one.
    pub(super) fn write_json<T: Serialize>(
        &self,
        path: &Path,
        document: &T,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(document).map_err(|error| at(path)(error.into()))?;
        let mut unfinished = self.unfinished()?;
        io::Write::write_all(&mut unfinished, &text).map_err(at(path))?;
        unfinished.rename_to(path)
    }
}
