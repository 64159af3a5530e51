//! The `Release` file of a suite: what the archive's signature covers.
//!
//! Its fields are described at <https://wiki.debian.org/DebianRepository/Format>.

use std::collections::BTreeMap;

use kiln_model::digest::Digest;

use super::control::{ControlError, stanzas};
use super::date::parse_date;
use crate::checksum::{ChecksumError, from_hex};

/// One index of the suite, as the release lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// The checksum of the file.
    pub sha256: Digest,
    /// The length of the file in bytes.
    pub size_bytes: u64,
}

/// What a `Release` file says.
#[derive(Clone, Debug)]
pub struct Release {
    /// The name that stays (`bookworm`, `bookworm-security`); empty where a third party has none.
    pub codename: String,
    /// The name that moves (`stable`, `oldstable-security`).
    pub suite: String,
    /// When the release was made, as it is written there.
    pub date: String,
    /// When the release was made, in seconds since 1970.
    pub date_seconds: i64,
    /// When it must no longer be used, in seconds since 1970. The main suites of a stable release
    /// say nothing about it.
    pub valid_until_seconds: Option<i64>,
    /// Whether the indexes can be fetched by their checksum.
    pub by_hash: bool,
    /// Whether packages for all architectures stand in an index of their own, and not in that of
    /// each architecture.
    pub separate_all: bool,
    /// The indexes by path below the suite's directory.
    pub files: BTreeMap<String, IndexFile>,
}

/// A release that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The syntax is wrong.
    #[error("the release can't be read")]
    Syntax(#[from] ControlError),
    /// A field is missing.
    #[error("the release has no field `{0}`")]
    Missing(&'static str),
    /// A date is wrong.
    #[error(
        "the release's `{field}` is `{value}`; a date such as `Sat, 11 Jul 2026 10:16:37 UTC` was expected"
    )]
    Date {
        /// The field's name.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// A line of the list of files is wrong.
    #[error(
        "the release's list of files has the line `{0}`; checksum, size and path were expected"
    )]
    File(String),
    /// A checksum is wrong.
    #[error("the release's list of files has a wrong checksum")]
    Checksum(#[from] ChecksumError),
}

impl Release {
    /// Reads the text of a release. The signature is the caller's to verify, before.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let stanza = stanzas(text).next().ok_or(ReleaseError::Missing("Suite"))??;
        let field = |name| stanza.get(name).ok_or(ReleaseError::Missing(name));
        let date = field("Date")?;
        let valid_until = stanza.get("Valid-Until");
        let text = |name| stanza.get(name).unwrap_or_default().to_owned();
        let (codename, suite) = (text("Codename"), text("Suite"));
        if codename.is_empty() && suite.is_empty() {
            return Err(ReleaseError::Missing("Suite"));
        }
        let lists_all = text("Architectures").split_ascii_whitespace().any(|name| name == "all");
        let none_for_all = stanza.get("No-Support-for-Architecture-all") == Some("Packages");
        Ok(Self {
            codename,
            suite,
            date: date.to_owned(),
            date_seconds: read_date("Date", date)?,
            valid_until_seconds: valid_until.map(|d| read_date("Valid-Until", d)).transpose()?,
            by_hash: stanza.get("Acquire-By-Hash") == Some("yes"),
            separate_all: lists_all && !none_for_all,
            files: read_files(field("SHA256")?)?,
        })
    }
}

fn read_files(list: &str) -> Result<BTreeMap<String, IndexFile>, ReleaseError> {
    let mut files = BTreeMap::new();
    for line in list.lines().filter(|line| !line.trim().is_empty()) {
        let wrong = || ReleaseError::File(line.trim().to_owned());
        let mut words = line.split_ascii_whitespace();
        let (Some(sha256), Some(size), Some(path), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let size_bytes = size.parse().map_err(|_| wrong())?;
        files.insert(path.to_owned(), IndexFile { sha256: from_hex(sha256)?, size_bytes });
    }
    Ok(files)
}

fn read_date(field: &'static str, value: &str) -> Result<i64, ReleaseError> {
    parse_date(value).ok_or_else(|| ReleaseError::Date { field, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_release() {
        let sum = Digest::of(b"x");
        let text = format!(
            "Suite: stable\nCodename: test\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
             Acquire-By-Hash: yes\nSHA256:\n {} 12 main/binary-amd64/Packages.xz\n",
            sum.hex()
        );
        let release = Release::parse(&text).unwrap();
        assert!(release.by_hash && release.valid_until_seconds.is_none());
        let file = release.files["main/binary-amd64/Packages.xz"];
        assert_eq!(file, IndexFile { sha256: sum, size_bytes: 12 });
        assert!(matches!(Release::parse("Codename: x\n"), Err(ReleaseError::Missing("Date"))));
        let cut = text.replace(" 12 ", " ");
        assert!(matches!(Release::parse(&cut), Err(ReleaseError::File(_))));
    }
}
