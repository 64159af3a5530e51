//! `kiln.lock`: what the recipes of a stack were resolved to.
//!
//! It stands in the stack's directory and is kept with it. It is JSON with one line for each
//! package, so that a difference between two versions reads well. An entry belongs to a
//! [`Request`] (base, architecture, names of packages and where they may come from), whoever makes
//! it: two images with the same request share it, and it holds for as long as somebody makes the
//! request.

mod difference;
mod download;
mod file;
mod oci;
mod request;
mod resolve;
mod sum;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kiln_model::canonical::{self, EncodeError};
use kiln_model::digest::Digest;
use kiln_model::spec::image::{Base, Inputs, Recipe, Step};
use serde::{Deserialize, Serialize};

use crate::debian::archive::ArchiveRecord;

pub use difference::{EntryDifference, PackageChange, PackageDifference};
pub use file::{FILE_NAME, LockFileError};
pub use oci::PinError;
pub use request::{RepositoryRequest, Request, Tools};
pub use resolve::{ResolveRequestError, Sources};

/// One package, pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The checksum of its `.deb`.
    pub sha256: Digest,
    /// The length of its `.deb` in bytes.
    pub size: u64,
    /// The suite that it was found in.
    pub suite: String,
    /// The third party's archive that it was found in, by the name that the recipe gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The source package that it was built from, where that has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether only maintainer scripts need it: it is there while they run and not in the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tool: bool,
    /// Its path below the mirror's root.
    pub filename: String,
}

/// What one request was resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockEntry {
    /// The releases that were read.
    pub archives: Vec<ArchiveRecord>,
    /// All packages that the request needs, by name.
    pub packages: Vec<LockedPackage>,
}

impl LockEntry {
    /// The digest that stands for the entry in an image's identity. It covers what is in the
    /// packages and not where they were found: SHA-256 over the domain `kiln.inputs.v1`, a line
    /// feed, and the canonical JSON of a list of objects with `architecture`, `name`, `sha256`,
    /// `version`, and `tool` for those that only maintainer scripts need.
    pub fn inputs(&self) -> Result<Digest, EncodeError> {
        #[derive(Serialize)]
        struct Input<'a> {
            name: &'a str,
            version: &'a str,
            architecture: &'a str,
            sha256: Digest,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            tool: bool,
        }
        let mut inputs = Vec::with_capacity(self.packages.len());
        for LockedPackage { name, version, architecture, sha256, tool, .. } in &self.packages {
            inputs.push(Input { name, version, architecture, sha256: *sha256, tool: *tool });
        }
        canonical::digest("kiln.inputs.v1", &inputs, &|_| None)
    }
}

/// Why a recipe's inputs are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlocked {
    /// There is no lock yet.
    NoLock,
    /// The lock has no entry for this request.
    NoEntry(Box<Request>),
    /// The lock does not say which image this reference stands for.
    NoReference(String),
}

impl fmt::Display for Unlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLock => write!(f, "there is no {FILE_NAME} yet; it is written by apply"),
            Self::NoEntry(request) => {
                write!(f, "{FILE_NAME} has no entry for {request}; it is added by apply")
            }
            Self::NoReference(reference) => {
                write!(f, "{FILE_NAME} has no entry for oci(\"{reference}\"); it is added by apply")
            }
        }
    }
}

/// The content of a stack's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    entries: BTreeMap<Request, LockEntry>,
    /// The digests of what recipes copy, by path below the stack's directory.
    copies: BTreeMap<String, Digest>,
    /// The digests of manifests, by reference and architecture.
    references: BTreeMap<(String, String), Digest>,
}

impl Lock {
    /// The entry for a request.
    pub fn entry(&self, request: &Request) -> Option<&LockEntry> {
        self.entries.get(request)
    }

    /// All entries.
    pub fn entries(&self) -> &BTreeMap<Request, LockEntry> {
        &self.entries
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.copies.is_empty() && self.references.is_empty()
    }

    /// The locked inputs of a recipe, or why they are not known.
    pub fn inputs(&self, recipe: &Recipe, architecture: &str) -> Result<Digest, Unlocked> {
        if let Base::Oci { reference } = &recipe.base {
            return self.oci_inputs(reference, architecture);
        }
        let entry = match Request::of(recipe, architecture) {
            None => &LockEntry { archives: Vec::new(), packages: Vec::new() },
            Some(request) => match self.entries.get(&request) {
                Some(entry) => entry,
                None if self.entries.is_empty() => return Err(Unlocked::NoLock),
                None => return Err(Unlocked::NoEntry(Box::new(request))),
            },
        };
        // Names, versions and digests are strings, which always encode.
        Ok(entry.inputs().expect("a list of strings has a canonical encoding"))
    }

    /// The same as a part of an image's identity.
    pub fn identity_inputs(&self, recipe: &Recipe, architecture: &str) -> Inputs {
        self.inputs(recipe, architecture).map_or(Inputs::Unlocked, Inputs::Locked)
    }

    /// Takes over from `other` what this lock says nothing of: requests and references. Whether it
    /// took anything.
    pub fn complete_from(&mut self, other: &Self) -> bool {
        let before = (self.entries.len(), self.references.len());
        for (request, entry) in &other.entries {
            self.entries.entry(request.clone()).or_insert_with(|| entry.clone());
        }
        for (reference, digest) in &other.references {
            self.references.entry(reference.clone()).or_insert(*digest);
        }
        before != (self.entries.len(), self.references.len())
    }

    /// Notes what a recipe copies.
    pub fn record_copies(&mut self, recipe: &Recipe) {
        for step in &recipe.steps {
            if let Step::Copy { from, digest, .. } = step {
                self.copies.insert(from.clone(), *digest);
            }
        }
    }

    /// Drops what none of the recipes of the stack asks for any more.
    pub fn retain<'a>(
        &mut self,
        recipes: impl IntoIterator<Item = &'a Recipe>,
        architecture: &str,
    ) {
        let mut requests = BTreeSet::new();
        let mut copies = BTreeSet::new();
        let recipes: Vec<&Recipe> = recipes.into_iter().collect();
        self.retain_references(recipes.iter().copied());
        for recipe in recipes {
            requests.extend(Request::of(recipe, architecture));
            for step in &recipe.steps {
                if let Step::Copy { from, .. } = step {
                    copies.insert(from.clone());
                }
            }
        }
        // Entries for other architectures belong to other machines that share the stack.
        self.entries.retain(|request, _| {
            let here = Request { architecture: architecture.to_owned(), ..request.clone() };
            requests.contains(&here)
        });
        self.copies.retain(|from, _| copies.contains(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(references: &[(&str, u8)]) -> Lock {
        let entry = |(reference, digest): &(&str, u8)| {
            let key = ((*reference).to_owned(), "amd64".to_owned());
            (key, Digest::from_bytes([*digest; 32]))
        };
        Lock { references: references.iter().map(entry).collect(), ..Lock::default() }
    }

    #[test]
    fn a_lock_is_completed_and_keeps_what_it_says() {
        let mut own = lock(&[("web:1", 1)]);
        assert!(own.complete_from(&lock(&[("web:1", 9), ("db:1", 2)])));
        assert_eq!(own, lock(&[("web:1", 1), ("db:1", 2)]));
        assert!(!own.complete_from(&lock(&[("db:1", 3)])), "nothing was lacking");
    }
}
