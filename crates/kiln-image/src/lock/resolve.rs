//! Filling the lock: from a request to packages.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::spec::image::{Base, Recipe, Repository};

use super::{Lock, LockEntry, LockedPackage, Request, Tools};
use crate::debian::archive::{ArchiveError, ArchiveRecord, VerifiedRelease, read_indexes};
use crate::debian::resolve::{Found, ResolveError, Wish, resolve_wish};
use crate::debian::suite::{ArchiveSource, Mirrors, native_architecture};
use crate::debian::universe::{Universe, UniverseError};
use crate::fetch::{Cache, FetchError, Fetcher, Patience};
use crate::oci::registry::Registry;
use crate::openpgp::{Keyring, KeyringError};
use crate::progress::{Event, Progress};

/// The package with a system's first files, which each image gets: it says which release the
/// image is of.
const BASE_PACKAGE: &str = "base-files";
/// What works on packages, for images that keep it.
const PACKAGE_TOOLS: [&str; 2] = ["apt", "dpkg"];

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
    /// The keys of a third party can't be read.
    #[error("the key of repository \"{repository}\" can't be used")]
    RepositoryKey {
        /// The name that the recipe gives the archive.
        repository: String,
        /// Why.
        source: KeyringError,
    },
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
        let mut parts: Vec<Parts> = Vec::new();
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
            if !parts.iter().any(|parts| parts.serve(&request)) {
                parts.push(Parts::read(&request, &recipe.repositories, sources, progress)?);
            }
            let known = parts.iter().find(|parts| parts.serve(&request));
            let entry = known.expect("the parts were read just now").entry(&request)?;
            resolved.insert(request, entry);
        }
        lock.entries.extend(resolved);
        *self = lock;
        Ok(())
    }
}

/// The indexes of a suite with its pockets and third parties' archives.
struct Parts {
    /// A request that they were read for.
    request: Request,
    archives: Vec<ArchiveRecord>,
    universe: Universe,
}

impl Parts {
    fn read(
        request: &Request,
        repositories: &[Repository],
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<Self, ResolveRequestError> {
        let Request { suite, architecture, pockets, .. } = request;
        progress.event(Event::Resolve { suite });
        let Sources { fetcher, mirrors, now_seconds, .. } = sources;
        // Each archive with its own keys: one party's must not vouch for another's packages.
        let mut archives: Vec<(ArchiveSource, Keyring)> = Vec::new();
        for archive in mirrors.archives(suite, pockets) {
            archives.push((archive, mirrors.keyring.clone()));
        }
        for repository in repositories {
            let mut keyring = Keyring::default();
            keyring.add(repository.key.as_bytes()).map_err(|source| {
                let repository = repository.name.clone();
                ResolveRequestError::RepositoryKey { repository, source }
            })?;
            archives.push((ArchiveSource::third_party(repository), keyring));
        }
        let fetch = |(source, keyring): &(ArchiveSource, Keyring)| {
            VerifiedRelease::fetch(fetcher, source, keyring, *now_seconds)
        };
        let releases: Vec<VerifiedRelease> =
            archives.iter().map(fetch).collect::<Result<_, _>>()?;
        let foreign = request.foreign();
        let packages = read_indexes(fetcher, &releases, architecture, &foreign, progress)?;
        let universe = Universe::with_foreign(packages, architecture, &foreign)
            .map_err(|source| ResolveRequestError::Indexes { suite: suite.clone(), source })?;
        let archives = releases.iter().map(VerifiedRelease::record).collect();
        Ok(Self { request: request.clone(), archives, universe })
    }

    /// Whether the indexes are those that a request is about.
    fn serve(&self, request: &Request) -> bool {
        let own = &self.request;
        own.suite == request.suite
            && own.architecture == request.architecture
            && own.pockets == request.pockets
            && own.repositories == request.repositories
            && own.foreign() == request.foreign()
    }

    fn entry(&self, request: &Request) -> Result<LockEntry, ResolveRequestError> {
        let mut names: Vec<String> = request.packages.iter().cloned().collect();
        let keep_tools = request.tools.contains(&Tools::Kept);
        let more = PACKAGE_TOOLS.iter().filter(|_| keep_tools).chain([&BASE_PACKAGE]);
        names.extend(more.map(ToString::to_string).filter(|n| !request.packages.contains(n)));
        let wish = Wish {
            packages: &names,
            recommends: request.recommends,
            keep_tools,
            script_tools: request.tools.contains(&Tools::Scripts),
        };
        let Found { packages, tools } = resolve_wish(&self.universe, wish).map_err(|source| {
            ResolveRequestError::Resolve { suite: request.suite.clone(), source }
        })?;
        let mut locked: Vec<LockedPackage> =
            packages.into_iter().map(|position| self.lock(position, false)).collect();
        locked.extend(tools.into_iter().map(|position| self.lock(position, true)));
        Ok(LockEntry { archives: self.archives.clone(), packages: locked })
    }

    fn lock(&self, position: usize, tool: bool) -> LockedPackage {
        let package = self.universe.get(position);
        let archive = &self.archives[package.archive];
        LockedPackage {
            name: package.name.clone(),
            version: package.version.to_string(),
            architecture: package.architecture.clone(),
            sha256: package.sha256,
            size: package.size_bytes,
            suite: archive.suite.clone(),
            repository: archive.repository.clone(),
            source: Some(package.source.clone()).filter(|source| *source != package.name),
            tool,
            filename: package.filename.clone(),
        }
    }
}
