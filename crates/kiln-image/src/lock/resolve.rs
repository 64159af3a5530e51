//! Filling the lock: from a request to packages.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::spec::image::{Base, Recipe};

use super::{Lock, LockEntry, LockedPackage, Request};
use crate::debian::archive::{ArchiveError, ArchiveRecord, VerifiedRelease, read_indexes};
use crate::debian::resolve::{ResolveError, resolve};
use crate::debian::suite::{Mirrors, native_architecture};
use crate::debian::universe::{Universe, UniverseError};
use crate::fetch::{Cache, FetchError, Fetcher, Patience};
use crate::oci::registry::Registry;
use crate::openpgp::KeyringError;
use crate::progress::{Event, Progress};

/// The package with a system's first files, which each image gets: it says which release the
/// image is of.
const BASE_PACKAGE: &str = "base-files";

/// Where packages come from.
#[derive(Debug)]
pub struct Sources {
    /// Fetches files and keeps them.
    pub fetcher: Fetcher,
    /// Mirrors and keys.
    pub mirrors: Mirrors,
    /// The architecture to resolve for, as Debian calls it.
    pub architecture: String,
    /// The time against which validity is measured, in seconds since 1970.
    pub now_seconds: i64,
    /// Where images come from that others are built on.
    pub registry: Registry,
}

/// A request that can't be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveRequestError {
    /// Packages without an archive.
    #[error(
        "packages need a base to come from: set base = debian(\"bookworm\"), or leave them out"
    )]
    NoBase,
    /// An archive can't be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file can't be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The indexes can't be used.
    #[error("the indexes of debian(\"{suite}\") can't be used")]
    Indexes {
        /// The suite.
        suite: String,
        /// Why.
        source: UniverseError,
    },
    /// There is no such set of packages.
    #[error("debian(\"{suite}\") can't give what the image asks for")]
    Resolve {
        /// The suite.
        suite: String,
        /// Why.
        source: ResolveError,
    },
    /// The keys of the archives can't be read.
    #[error("the archive's keys that come with this program can't be read")]
    Keys(#[from] KeyringError),
}

impl Sources {
    /// The mirrors that the environment names, this machine's architecture and clock, and the cache
    /// below the root directory `root`.
    pub fn of_root(root: &Path) -> Result<Self, ResolveRequestError> {
        let cache = Cache::open(root.join("cache"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            fetcher: Fetcher::new(cache, Patience::default()),
            mirrors: Mirrors::from_env()?,
            architecture: native_architecture().to_owned(),
            now_seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            registry: Registry::from_env(),
        })
    }
}

impl Lock {
    /// Adds entries for the recipes whose requests have none; with `upgrade`, resolves all of them
    /// anew. On an error the lock stays as it was.
    pub fn update<'a>(
        &mut self,
        recipes: impl IntoIterator<Item = &'a Recipe>,
        sources: &Sources,
        upgrade: bool,
        progress: &dyn Progress,
    ) -> Result<(), ResolveRequestError> {
        let mut lock = self.clone();
        let mut suites: BTreeMap<String, Suite> = BTreeMap::new();
        let mut resolved: BTreeMap<Request, LockEntry> = BTreeMap::new();
        for recipe in recipes {
            if matches!(recipe.base, Base::Scratch) && !recipe.packages.is_empty() {
                return Err(ResolveRequestError::NoBase);
            }
            lock.record_copies(recipe);
            let Some(request) = Request::of(recipe, &sources.architecture) else { continue };
            let known = !upgrade && lock.entries.contains_key(&request);
            if known || resolved.contains_key(&request) {
                continue;
            }
            if !suites.contains_key(&request.suite) {
                suites.insert(request.suite.clone(), Suite::read(&request, sources, progress)?);
            }
            let entry = suites[&request.suite].entry(&request)?;
            resolved.insert(request, entry);
        }
        lock.entries.extend(resolved);
        *self = lock;
        Ok(())
    }
}

/// The indexes of one suite.
struct Suite {
    archives: Vec<ArchiveRecord>,
    universe: Universe,
}

impl Suite {
    fn read(
        request: &Request,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<Self, ResolveRequestError> {
        let Request { suite, architecture, .. } = request;
        progress.event(Event::Resolve { suite });
        let Sources { fetcher, mirrors, now_seconds, .. } = sources;
        let fetch =
            |source| VerifiedRelease::fetch(fetcher, source, &mirrors.keyring, *now_seconds);
        let releases: Vec<VerifiedRelease> =
            mirrors.archives(suite).iter().map(fetch).collect::<Result<_, _>>()?;
        let packages = read_indexes(fetcher, &releases, architecture, progress)?;
        let universe = Universe::new(packages, architecture)
            .map_err(|source| ResolveRequestError::Indexes { suite: suite.clone(), source })?;
        Ok(Self { archives: releases.iter().map(VerifiedRelease::record).collect(), universe })
    }

    fn entry(&self, request: &Request) -> Result<LockEntry, ResolveRequestError> {
        let mut names: Vec<String> = request.packages.iter().cloned().collect();
        if !request.packages.contains(BASE_PACKAGE) {
            names.push(BASE_PACKAGE.to_owned());
        }
        let found = resolve(&self.universe, &names).map_err(|source| {
            ResolveRequestError::Resolve { suite: request.suite.clone(), source }
        })?;
        let lock = |position: usize| {
            let package = self.universe.get(position);
            LockedPackage {
                name: package.name.clone(),
                version: package.version.to_string(),
                architecture: package.architecture.clone(),
                sha256: package.sha256,
                size: package.size_bytes,
                suite: self.archives[package.archive].suite.clone(),
                filename: package.filename.clone(),
            }
        };
        let packages = found.into_iter().map(lock).collect();
        Ok(LockEntry { archives: self.archives.clone(), packages })
    }
}
