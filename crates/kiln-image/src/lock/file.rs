//! The lock as a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::spec::image::Pocket;
use serde::{Deserialize, Serialize};

use super::oci::Pinned;
use super::{Lock, LockEntry, LockedPackage, RepositoryRequest, Request, Tools, sum};
use crate::debian::archive::ArchiveRecord;
use crate::debian::suite::default_pockets;

/// The lock's name in the stack's directory.
pub const FILE_NAME: &str = "kiln.lock";

/// The version of the format that this program writes, and the only one that it reads.
const VERSION: u32 = 1;

/// A lock that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    /// The file can't be read or written.
    #[error("can't read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its text is not a lock.
    #[error("{path} is damaged; restore it from your version control, or delete it to lock anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is not what was written.
    #[error(
        "{path} was altered since kiln wrote it; restore it from your version control, or, if you \
         merged it, take out its line `sum`: it is then taken as it stands"
    )]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// It is of another version.
    #[error("{path} has format {found}, this program reads {VERSION}; use the kiln that wrote it")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that stands there.
        found: u32,
    },
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "version")]
    _version: u32,
    debian: Vec<EntryDocument>,
    #[serde(default)]
    oci: Vec<Pinned>,
    copies: Vec<CopyDocument>,
    sum: Option<Digest>,
}

/// One request and what it was resolved to. What a request does not say stands as it is where a
/// recipe does not say it either.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryDocument {
    suite: String,
    architecture: String,
    request: BTreeSet<String>,
    #[serde(default)]
    recommends: bool,
    #[serde(default = "default_pockets")]
    pockets: BTreeSet<Pocket>,
    #[serde(default)]
    repositories: BTreeSet<RepositoryRequest>,
    #[serde(default)]
    tools: BTreeSet<Tools>,
    archives: Vec<ArchiveRecord>,
    packages: Vec<LockedPackage>,
}

impl EntryDocument {
    fn into_entry(self) -> (Request, LockEntry) {
        let Self { suite, architecture, recommends, pockets, repositories, tools, .. } = self;
        let packages = self.request;
        let request =
            Request { suite, architecture, packages, recommends, pockets, repositories, tools };
        (request, LockEntry { archives: self.archives, packages: self.packages })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CopyDocument {
    from: String,
    digest: Digest,
}

impl Lock {
    /// Reads the lock of the stack in `directory`; an empty one if there is none.
    pub fn load(directory: &Path) -> Result<Self, LockFileError> {
        let path = directory.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LockFileError::Io { path, source }),
        };
        let damaged = |source| LockFileError::Damaged { path: path.clone(), source };
        let Versioned { version } = serde_json::from_slice(&text).map_err(damaged)?;
        if version != VERSION {
            return Err(LockFileError::Version { path, found: version });
        }
        let document: Document = serde_json::from_slice(&text).map_err(damaged)?;
        if !sum::holds(&text, document.sum.as_ref()) {
            return Err(LockFileError::Altered { path });
        }
        let copies: BTreeMap<String, Digest> =
            document.copies.into_iter().map(|copy| (copy.from, copy.digest)).collect();
        let entries = document.debian.into_iter().map(EntryDocument::into_entry).collect();
        let references = document.oci.into_iter().map(Into::into).collect();
        Ok(Self { entries, copies, references })
    }

    /// Writes the lock of the stack in `directory`, unless it says the same already. Readers see
    /// the old text or the new one.
    pub fn save(&self, directory: &Path) -> Result<(), LockFileError> {
        let path = directory.join(FILE_NAME);
        let text = self.to_text();
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        let unfinished = directory.join(format!(".{FILE_NAME}.{}", std::process::id()));
        let written = write_synced(&unfinished, text.as_bytes())
            .and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|source| {
            // What could not be finished is of no use; the first error is the one to show.
            let _ = fs::remove_file(&unfinished);
            LockFileError::Io { path, source }
        })
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{{\n  \"version\": {VERSION},\n  \"debian\": [");
        let mut separator = "";
        for (request, entry) in &self.entries {
            text += separator;
            separator = ",";
            text += "\n    {";
            text += &request_lines(request);
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "\n      \"archives\": [{}\n      ],\n      \"packages\": [{}\n      ]\n    }}",
                lines(&entry.archives, 8),
                lines(&entry.packages, 8),
            );
        }
        let copy = |(from, digest): (&String, &Digest)| CopyDocument {
            from: from.clone(),
            digest: *digest,
        };
        let copies: Vec<CopyDocument> = self.copies.iter().map(copy).collect();
        let pinned = self.pinned();
        if !pinned.is_empty() {
            let _ = write!(text, "\n  ],\n  \"oci\": [{}", lines(&pinned, 4));
        }
        let _ = write!(text, "\n  ],\n  \"copies\": [{}\n  ]\n}}\n", lines(&copies, 4));
        sum::seal(&text)
    }
}

/// A request, one line for each of its parts that does not go without saying.
fn request_lines(request: &Request) -> String {
    let Request { suite, architecture, packages, recommends, pockets, repositories, tools } =
        request;
    let mut parts = vec![
        ("suite", json(suite)),
        ("architecture", json(architecture)),
        ("request", json(packages)),
    ];
    if *recommends {
        parts.push(("recommends", json(recommends)));
    }
    if *pockets != default_pockets() {
        parts.push(("pockets", json(pockets)));
    }
    if !repositories.is_empty() {
        let listed: Vec<&RepositoryRequest> = repositories.iter().collect();
        parts.push(("repositories", format!("[{}\n      ]", lines(&listed, 8))));
    }
    if !tools.is_empty() {
        parts.push(("tools", json(tools)));
    }
    let line = |(name, value): (&str, String)| format!("\n      \"{name}\": {value},");
    parts.into_iter().map(line).collect()
}

/// A value as JSON on one line.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists of them can be written as JSON")
}

/// Values one to a line, each after so many spaces.
fn lines<T: Serialize>(values: &[T], indent: usize) -> String {
    let line = |value| format!("\n{:indent$}{}", "", json(value));
    values.iter().map(line).collect::<Vec<_>>().join(",")
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
