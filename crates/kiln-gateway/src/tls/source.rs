//! Where a certificate comes from, and reading it from there.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;
use std::{fs, io};

use kiln_model::certificate::{CertificatePair, Key};
use serde::{Deserialize, Serialize};

use crate::tls::keypair::{LARGEST, Texts};

/// Where the gateway finds a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Source {
    /// Issued by a certificate authority: the daemon puts it into one file with its key. Until
    /// there is one, clients that ask for the name are refused.
    Issued {
        /// The file.
        issued: PathBuf,
        /// The host that it is for.
        name: String,
    },
    /// Given.
    Pair(CertificatePair),
}

/// What tells whether a file has changed, followed through links.
pub(super) type Mark = (u64, u64, u64, SystemTime);

/// Why there is nothing to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// What is to come has not come yet.
    Awaited,
    /// A file cannot be used, in words.
    Broken(String),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unread::Awaited => formatter.write_str("none has been issued yet"),
            Unread::Broken(trouble) => formatter.write_str(trouble),
        }
    }
}

impl Source {
    /// The certificate as messages name it.
    pub(crate) fn title(&self) -> &str {
        match self {
            Source::Issued { name, .. } => name,
            Source::Pair(pair) => pair.title(),
        }
    }

    /// Marks of its files, in a fixed order.
    pub(super) fn marks(&self) -> Result<Vec<Mark>, Unread> {
        let files: Vec<&str> = match self {
            Source::Issued { issued, .. } => match mark(&issued.to_string_lossy()) {
                Err((_, error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Unread::Awaited);
                }
                mark => return Ok(vec![mark.map_err(broken)?]),
            },
            Source::Pair(pair) => {
                let key = match &pair.key {
                    Key::File(path) => Some(&**path),
                    Key::Secret(_) => None,
                };
                pair.file().into_iter().chain(key).collect()
            }
        };
        files.into_iter().map(|path| mark(path).map_err(broken)).collect()
    }

    /// Reads both texts; `secret` is the key where that is not in a file.
    pub(super) fn read(&self, secret: Option<&str>) -> Result<Texts, Unread> {
        let text = |path: &str| read_text(path).map_err(|error| broken((path.to_owned(), error)));
        match self {
            Source::Issued { issued, .. } => {
                let both = text(&issued.to_string_lossy())?;
                Ok(Texts { certificate: both.clone(), key: both })
            }
            Source::Pair(pair) => {
                let certificate = match pair.file() {
                    Some(path) => text(path)?,
                    None => pair.certificate.clone(),
                };
                let key = match (&pair.key, secret) {
                    (Key::File(path), _) => text(path)?,
                    (Key::Secret(_), Some(value)) => value.to_owned(),
                    (Key::Secret(key), None) => {
                        let trouble = format!("the value of {} was not handed over", key.secret);
                        return Err(Unread::Broken(trouble));
                    }
                };
                Ok(Texts { certificate, key })
            }
        }
    }
}

fn broken((path, error): (String, io::Error)) -> Unread {
    Unread::Broken(format!("{path}: {error}"))
}

fn mark(path: &str) -> Result<Mark, (String, io::Error)> {
    let look = || {
        let file = fs::metadata(path)?;
        Ok((file.dev(), file.ino(), file.len(), file.modified()?))
    };
    look().map_err(|error| (path.to_owned(), error))
}

fn read_text(path: &str) -> io::Result<String> {
    use std::io::Read as _;

    let file = fs::File::open(path)?;
    let mut text = String::new();
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if file.take(LARGEST + 1).read_to_string(&mut text)? as u64 > LARGEST {
        return Err(io::Error::other("larger than a certificate can be"));
    }
    Ok(text)
}
