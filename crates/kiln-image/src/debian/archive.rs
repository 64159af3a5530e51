//! Reading an archive: its signed release, then the indexes that the release vouches for.

use std::collections::BTreeSet;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use kiln_model::digest::Digest;
use lzma_rust2::XzReader;
use serde::{Deserialize, Serialize};

use super::date::show_day;
use super::package::{IndexError, Package, parse_index};
use super::release::{IndexFile, Release, ReleaseError};
use super::suite::ArchiveSource;
use crate::fetch::{Download, FetchError, Fetcher};
use crate::openpgp::{self, Keyring, VerifyError};
use crate::progress::Progress;

/// The longest release that is read, in bytes; Debian's are below 200 kB.
const MAX_RELEASE_BYTES: u64 = 8 << 20;
/// The longest index that is read, in bytes; that of sid's main is below 80 MB.
const MAX_INDEX_BYTES: u64 = 1 << 30;
/// How far ahead of this machine's clock a release may be dated.
const CLOCK_SKEW_SECONDS: i64 = 86_400;

/// The release of an archive that was read, as the lock records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRecord {
    /// The suite's code name.
    pub suite: String,
    /// The name that the recipe gives it, where it is a third party's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The mirror's root.
    pub mirror: String,
    /// When the release was made, in the archive's own words.
    pub date: String,
    /// The checksum of its `InRelease`, or of its `Release` where the signature stands apart.
    pub release: Digest,
}

/// An archive that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file can't be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The suite does not exist on the mirror.
    #[error(
        "there is no suite {archive}; check the name and the mirror, which may have dropped it"
    )]
    NoSuite {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// The answer.
        source: FetchError,
    },
    /// There is no signature.
    #[error("the release of {archive} is refused: it is not signed")]
    Unsigned {
        /// The archive.
        archive: Box<ArchiveSource>,
    },
    /// The signature does not hold.
    #[error("the release of {archive} is refused")]
    Signature {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// Why.
        source: VerifyError,
    },
    /// The release can't be read.
    #[error("the release of {archive} is refused")]
    Release {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// Why.
        source: ReleaseError,
    },
    /// The release is another suite's.
    #[error("the release of `{found}` was given where that of {archive} was asked for")]
    WrongSuite {
        /// What was asked for.
        archive: Box<ArchiveSource>,
        /// What came.
        found: String,
    },
    /// The release is too old.
    #[error(
        "the release of {archive}, made {date}, is no longer valid since {ended}; use a mirror that is up to date, or check this machine's clock"
    )]
    Expired {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// When it was made.
        date: String,
        /// The day from which on it must not be used.
        ended: String,
    },
    /// The release is from the future.
    #[error("the release of {archive} is dated {date}, after now; check this machine's clock")]
    Future {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// When it was made.
        date: String,
    },
    /// The release lists no index for this architecture.
    #[error(
        "the release of {archive} has no `{path}`; the archive may not support this architecture"
    )]
    NoIndex {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// The index's path.
        path: String,
    },
    /// An index can't be unpacked.
    #[error("the index {url} can't be unpacked")]
    Unpack {
        /// Its address.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// An index can't be read.
    #[error("the index {url} can't be used")]
    Index {
        /// Its address.
        url: String,
        /// Why.
        source: IndexError,
    },
}

/// A release whose signature has been verified.
#[derive(Debug)]
pub struct VerifiedRelease {
    source: ArchiveSource,
    release: Release,
    digest: Digest,
}

impl VerifiedRelease {
    /// Fetches the release of an archive and verifies it at `now_seconds` (since 1970).
    pub fn fetch(
        fetcher: &Fetcher,
        source: &ArchiveSource,
        keyring: &Keyring,
        now_seconds: i64,
    ) -> Result<Self, ArchiveError> {
        let suite = format!("{}/dists/{}", source.mirror, source.suite);
        let no_suite = |error| match error {
            error @ FetchError::Absent { .. } => {
                ArchiveError::NoSuite { archive: Box::new(source.clone()), source: error }
            }
            error => error.into(),
        };
        match fetcher.fetch(&format!("{suite}/InRelease"), MAX_RELEASE_BYTES) {
            Ok(document) => Self::verify(&document, source, keyring, now_seconds),
            // The older form: text and signature apart.
            Err(absent @ FetchError::Absent { .. }) => {
                let Ok(document) = fetcher.fetch(&format!("{suite}/Release"), MAX_RELEASE_BYTES)
                else {
                    return Err(no_suite(absent));
                };
                let signature = fetcher.fetch(&format!("{suite}/Release.gpg"), MAX_RELEASE_BYTES);
                let signature = signature.map_err(|error| match error {
                    FetchError::Absent { .. } => {
                        ArchiveError::Unsigned { archive: Box::new(source.clone()) }
                    }
                    error => error.into(),
                })?;
                openpgp::verify_detached(&document, &signature, keyring, now_seconds).map_err(
                    |error| ArchiveError::Signature {
                        archive: Box::new(source.clone()),
                        source: error,
                    },
                )?;
                let text = String::from_utf8_lossy(&document);
                Self::check(&text, Digest::of(&document), source, now_seconds)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Verifies a release as it was fetched.
    pub fn verify(
        document: &[u8],
        source: &ArchiveSource,
        keyring: &Keyring,
        now_seconds: i64,
    ) -> Result<Self, ArchiveError> {
        let archive = || Box::new(source.clone());
        let signed = openpgp::verify(document, keyring, now_seconds)
            .map_err(|source| ArchiveError::Signature { archive: archive(), source })?;
        Self::check(&signed.text(), Digest::of(document), source, now_seconds)
    }

    /// Whether a text whose signature holds is the release that was asked for, and of today.
    fn check(
        text: &str,
        digest: Digest,
        source: &ArchiveSource,
        now_seconds: i64,
    ) -> Result<Self, ArchiveError> {
        let archive = || Box::new(source.clone());
        let release = Release::parse(text)
            .map_err(|source| ArchiveError::Release { archive: archive(), source })?;
        if release.codename != source.suite && release.suite != source.suite {
            let names = [release.codename, release.suite];
            let found = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
            return Err(ArchiveError::WrongSuite { archive: archive(), found });
        }
        let date = release.date.clone();
        if let Some(until) = release.valid_until_seconds.filter(|until| *until <= now_seconds) {
            let ended = show_day(until);
            return Err(ArchiveError::Expired { archive: archive(), date, ended });
        }
        if release.date_seconds > now_seconds + CLOCK_SKEW_SECONDS {
            return Err(ArchiveError::Future { archive: archive(), date });
        }
        Ok(Self { source: source.clone(), release, digest })
    }

    /// What the lock keeps of it.
    pub fn record(&self) -> ArchiveRecord {
        ArchiveRecord {
            suite: self.source.suite.clone(),
            repository: self.source.repository.clone(),
            mirror: self.source.mirror.clone(),
            date: self.release.date.clone(),
            release: self.digest,
        }
    }

    /// Whether packages are to be taken from here only where no other archive has what is needed.
    pub fn is_last_resort(&self) -> bool {
        self.source.last_resort
    }

    /// The indexes of the archive's components for an architecture, as something to fetch.
    pub fn indexes(&self, architecture: &str) -> Result<Vec<Index>, ArchiveError> {
        let mut indexes = Vec::new();
        for component in &self.source.components {
            let own = self.index(component, architecture);
            let all = self.release.separate_all.then(|| self.index(component, "all")).flatten();
            if own.is_none() && all.is_none() {
                let path = format!("{component}/binary-{architecture}/Packages");
                return Err(ArchiveError::NoIndex { archive: Box::new(self.source.clone()), path });
            }
            indexes.extend(own);
            indexes.extend(all);
        }
        Ok(indexes)
    }

    /// One index, in the form that is the shortest to fetch.
    fn index(&self, component: &str, architecture: &str) -> Option<Index> {
        let directory = format!("{component}/binary-{architecture}");
        let suite = format!("{}/dists/{}", self.source.mirror, self.source.suite);
        for packing in [Packing::Xz, Packing::Gzip, Packing::Plain] {
            let path = format!("{directory}/Packages{}", packing.suffix());
            let found = self.release.files.get(&path);
            let Some(IndexFile { sha256, size_bytes }) = found.copied() else { continue };
            let mut urls = vec![format!("{suite}/{path}")];
            if self.release.by_hash {
                urls.insert(0, format!("{suite}/{directory}/by-hash/SHA256/{}", sha256.hex()));
            }
            return Some(Index { download: Download { urls, sha256, size_bytes }, packing });
        }
        None
    }
}

/// One index of packages.
#[derive(Clone, Debug)]
pub struct Index {
    download: Download,
    packing: Packing,
}

#[derive(Clone, Copy, Debug)]
enum Packing {
    Xz,
    Gzip,
    Plain,
}

impl Packing {
    fn suffix(self) -> &'static str {
        match self {
            Self::Xz => ".xz",
            Self::Gzip => ".gz",
            Self::Plain => "",
        }
    }

    fn unpack(self, path: &Path) -> std::io::Result<String> {
        let file = BufReader::new(std::fs::File::open(path)?);
        let reader: Box<dyn Read> = match self {
            Self::Xz => Box::new(XzReader::new(file, true)),
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Plain => Box::new(file),
        };
        let mut text = String::new();
        reader.take(MAX_INDEX_BYTES).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Fetches and reads the indexes of verified releases. A package's `archive` is its release's
/// place in the list. Architectures beside the first are read from the archives that have them,
/// at least one of which must.
pub fn read_indexes(
    fetcher: &Fetcher,
    releases: &[VerifiedRelease],
    architecture: &str,
    foreign: &BTreeSet<String>,
    progress: &dyn Progress,
) -> Result<Vec<Package>, ArchiveError> {
    let mut wanted = Vec::new();
    for (archive, release) in releases.iter().enumerate() {
        wanted.extend(release.indexes(architecture)?.into_iter().map(|index| (archive, index)));
    }
    for foreign in foreign {
        let found: Vec<Result<Vec<Index>, ArchiveError>> =
            releases.iter().map(|release| release.indexes(foreign)).collect();
        if found.iter().all(Result::is_err) {
            return found.into_iter().next().map_or(Ok(Vec::new()), |first| first.map(|_| vec![]));
        }
        for (archive, indexes) in found.into_iter().enumerate() {
            wanted.extend(indexes.into_iter().flatten().map(|index| (archive, index)));
        }
    }
    let downloads: Vec<Download> = wanted.iter().map(|(_, i)| i.download.clone()).collect();
    let paths = fetcher.download_all(&downloads, progress)?;
    let mut packages = Vec::new();
    for (path, (archive, index)) in paths.iter().zip(&wanted) {
        let url = index.download.urls[0].clone();
        let text = index
            .packing
            .unpack(path)
            .map_err(|source| ArchiveError::Unpack { url: url.clone(), source })?;
        let read = parse_index(&text, *archive);
        let mut read = read.map_err(|source| ArchiveError::Index { url, source })?;
        let last_resort = releases[*archive].is_last_resort();
        for package in &mut read {
            package.last_resort = last_resort;
        }
        packages.extend(read);
    }
    Ok(packages)
}
