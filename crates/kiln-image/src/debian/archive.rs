//! Reading an archive: its signed release, then the indexes that the release vouches for.

use std::io::Read;

use kiln_model::digest::Digest;
use lzma_rust2::XzReader;
use serde::{Deserialize, Serialize};

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
    /// The mirror's root.
    pub mirror: String,
    /// When the release was made, in the archive's own words.
    pub date: String,
    /// The checksum of its `InRelease`.
    pub release: Digest,
}

/// An archive that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file can't be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The suite does not exist on the mirror.
    #[error("there is no suite {archive}; check the name in debian(\"...\") and the mirror")]
    NoSuite {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// The answer.
        source: FetchError,
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
        "the release of {archive}, made {date}, is no longer valid; use a mirror that is up to date, or check this machine's clock"
    )]
    Expired {
        /// The archive.
        archive: Box<ArchiveSource>,
        /// When it was made.
        date: String,
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
        let url = format!("{}/dists/{}/InRelease", source.mirror, source.suite);
        let document = match fetcher.fetch(&url, MAX_RELEASE_BYTES) {
            Ok(document) => document,
            Err(source_error @ FetchError::Absent { .. }) => {
                let archive = Box::new(source.clone());
                return Err(ArchiveError::NoSuite { archive, source: source_error });
            }
            Err(error) => return Err(error.into()),
        };
        Self::verify(&document, source, keyring, now_seconds)
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
        let release = Release::parse(&signed.text())
            .map_err(|source| ArchiveError::Release { archive: archive(), source })?;
        if release.codename != source.suite && release.suite != source.suite {
            let found = release.codename;
            return Err(ArchiveError::WrongSuite { archive: archive(), found });
        }
        let date = release.date.clone();
        if release.valid_until_seconds.is_some_and(|until| until <= now_seconds) {
            return Err(ArchiveError::Expired { archive: archive(), date });
        }
        if release.date_seconds > now_seconds + CLOCK_SKEW_SECONDS {
            return Err(ArchiveError::Future { archive: archive(), date });
        }
        Ok(Self { source: source.clone(), release, digest: Digest::of(document) })
    }

    /// What the lock keeps of it.
    pub fn record(&self) -> ArchiveRecord {
        ArchiveRecord {
            suite: self.source.suite.clone(),
            mirror: self.source.mirror.clone(),
            date: self.release.date.clone(),
            release: self.digest,
        }
    }

    /// The index of component `main` for an architecture, as something to fetch.
    pub fn index(&self, architecture: &str) -> Result<Download, ArchiveError> {
        let path = format!("main/binary-{architecture}/Packages.xz");
        let Some(IndexFile { sha256, size_bytes }) = self.release.files.get(&path).copied() else {
            return Err(ArchiveError::NoIndex { archive: Box::new(self.source.clone()), path });
        };
        let suite = format!("{}/dists/{}", self.source.mirror, self.source.suite);
        let mut urls = vec![format!("{suite}/{path}")];
        if self.release.by_hash {
            let directory = format!("{suite}/main/binary-{architecture}");
            urls.insert(0, format!("{directory}/by-hash/SHA256/{}", sha256.hex()));
        }
        Ok(Download { urls, sha256, size_bytes })
    }
}

/// Fetches and reads the indexes of verified releases.
pub fn read_indexes(
    fetcher: &Fetcher,
    releases: &[VerifiedRelease],
    architecture: &str,
    progress: &dyn Progress,
) -> Result<Vec<Package>, ArchiveError> {
    let downloads: Vec<Download> =
        releases.iter().map(|release| release.index(architecture)).collect::<Result<_, _>>()?;
    let paths = fetcher.download_all(&downloads, progress)?;
    let mut packages = Vec::new();
    for (archive, (path, download)) in paths.iter().zip(&downloads).enumerate() {
        let url = download.urls[0].clone();
        let text =
            unpack(path).map_err(|source| ArchiveError::Unpack { url: url.clone(), source })?;
        let read = parse_index(&text, archive);
        packages.extend(read.map_err(|source| ArchiveError::Index { url, source })?);
    }
    Ok(packages)
}

fn unpack(path: &std::path::Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::io::BufReader::new(std::fs::File::open(path)?);
    XzReader::new(file, true).take(MAX_INDEX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
