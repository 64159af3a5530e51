//! Which branches are followed: a directory `ROOT/store/follows/ID` for each, with `follow.json`,
//! written once, and `record.json`, what has become of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::quantity::Millis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::record::Record;
use super::signature::Signers;
use crate::root::Root;

/// A branch that is to be followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// The repository's address.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// The stack's directory in it; empty for the top.
    pub path: String,
    /// From one look to the next.
    pub every: Millis,
    /// Who may sign; `None` where no signature is required.
    #[serde(default)]
    pub signers: Option<Signers>,
    /// Where a webhook is listened for.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// The key that SSH offers.
    #[serde(default)]
    pub identity: Option<PathBuf>,
    /// The file with a token for HTTP.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// `NAME=VALUE` of the stack's variables.
    #[serde(default)]
    pub vars: Vec<String>,
    /// Files of variables: of this machine where absolute, else of the stack's directory.
    #[serde(default)]
    pub var_files: Vec<PathBuf>,
    /// Where files of secrets may lie besides the stack's directory.
    #[serde(default)]
    pub secrets: Vec<PathBuf>,
    /// Whether it takes over a stack that was applied from elsewhere.
    #[serde(default)]
    pub adopt: bool,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where it listens: an address of this machine's loopback.
    pub listen: std::net::SocketAddr,
    /// The file with the secret that signs requests.
    pub secret_file: PathBuf,
}

/// Why the registry can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read or written")]
pub struct RegistryError {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Follow {
    /// What tells it from others: twelve hexadecimal digits that follow from address, branch and
    /// path.
    pub fn id(&self) -> String {
        let text = format!("kiln.follow.v1\n{}\n{}\n{}", self.url, self.branch, self.path);
        Digest::of(text.as_bytes()).short(12)
    }
}

/// The registry of a root.
#[derive(Debug, Clone)]
pub struct Registry {
    directory: PathBuf,
}

impl Registry {
    /// The registry of `root`. Touches nothing.
    pub fn of(root: &Root) -> Self {
        Self { directory: root.store().join("follows") }
    }

    /// The directory of one follow.
    pub fn place(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// The ids of all, in order.
    pub fn ids(&self) -> Result<Vec<String>, RegistryError> {
        let failed = |source| RegistryError { path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if is_id(&name) && self.place(&name).join("follow.json").exists() {
                ids.push(name);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// What is followed under an id; `None` where there is no such.
    pub fn follow(&self, id: &str) -> Result<Option<Follow>, RegistryError> {
        read(&self.place(id).join("follow.json"))
    }

    /// What has become of it.
    pub fn record(&self, id: &str) -> Result<Record, RegistryError> {
        Ok(read(&self.place(id).join("record.json"))?.unwrap_or_default())
    }

    /// Registers a follow, durably. One of the same address, branch and path is replaced; what has
    /// become of its commits stays known.
    pub fn register(&self, follow: &Follow) -> Result<String, RegistryError> {
        let id = follow.id();
        let place = self.place(&id);
        let failed = |source| RegistryError { path: place.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(failed)?;
        write(&place.join("follow.json"), follow, true)?;
        for directory in [&place, &self.directory] {
            File::open(directory).and_then(|d| d.sync_all()).map_err(failed)?;
        }
        Ok(id)
    }

    /// Keeps what has become of a follow. After a power failure it may be an older one.
    pub fn keep(&self, id: &str, record: &Record) -> Result<(), RegistryError> {
        write(&self.place(id).join("record.json"), record, false)
    }

    /// Ends a follow; whether there was one.
    pub fn remove(&self, id: &str) -> Result<bool, RegistryError> {
        let place = self.place(id);
        let failed = |source| RegistryError { path: place.clone(), source };
        // What is registered goes first: without it the rest is nothing.
        match fs::remove_file(place.join("follow.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            removed => removed.map_err(failed)?,
        }
        fs::remove_dir_all(&place).map_err(failed)?;
        Ok(true)
    }
}

/// Whether a name is that of a follow's directory.
pub fn is_id(name: &str) -> bool {
    name.len() == 12 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn read<D: DeserializeOwned>(path: &Path) -> Result<Option<D>, RegistryError> {
    let failed = |source| RegistryError { path: path.to_owned(), source };
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed)?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.into()))
}

fn write(path: &Path, document: &impl Serialize, durably: bool) -> Result<(), RegistryError> {
    let failed = |source| RegistryError { path: path.to_owned(), source };
    let text = serde_json::to_vec_pretty(document).map_err(|error| failed(error.into()))?;
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let mut file = opened.map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    if durably {
        file.sync_all().map_err(failed)?;
    }
    fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn follow(url: &str) -> Follow {
        Follow {
            url: url.to_owned(),
            branch: "main".to_owned(),
            path: String::new(),
            every: Millis::seconds(10),
            signers: None,
            webhook: None,
            identity: None,
            token_file: None,
            vars: Vec::new(),
            var_files: Vec::new(),
            secrets: Vec::new(),
            adopt: false,
        }
    }

    #[test]
    fn a_follow_is_registered_shown_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::of(&Root::new(directory.path()));
        assert!(registry.ids().unwrap().is_empty());
        let mut wanted = follow("/srv/git/shop");
        let id = registry.register(&wanted).unwrap();
        assert!(is_id(&id));
        let record = Record { commit: Some("abc".to_owned()), ..Record::default() };
        registry.keep(&id, &record).unwrap();
        wanted.every = Millis::seconds(1);
        assert_eq!(registry.register(&wanted).unwrap(), id, "the same branch once");
        assert_eq!(registry.follow(&id).unwrap(), Some(wanted));
        assert_eq!(registry.record(&id).unwrap(), record, "what became of it is not forgotten");
        assert_eq!(registry.ids().unwrap(), std::slice::from_ref(&id));
        assert!(registry.remove(&id).unwrap());
        assert!(!registry.remove(&id).unwrap());
        assert_eq!(registry.follow(&id).unwrap(), None);
    }
}
