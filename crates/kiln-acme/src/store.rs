//! What is kept below `ROOT/acme`, for root alone: `STACK/NAME.pem` with a certificate, those that
//! vouch for it, and its key; `STACK/NAME.json` with where it came from and what failed since;
//! `accounts/` with the keys of accounts. Each is written whole and put in place by a rename.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kiln_gateway::certificate::{Validity, validity_of_pem};
use kiln_model::certificate::{Acme, issued_file};
use kiln_model::digest::Digest;
use kiln_model::name::StackName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::due::Seconds;

/// The files of a root.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

/// What is known of a name besides its certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The directory of the authority that issued the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
    /// What has failed since it was last issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
}

/// Failures in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) count: u32,
    /// When the last one was.
    pub(crate) at: Seconds,
    /// Its reason.
    pub(crate) error: String,
    /// Of whom it was asked.
    pub(crate) asked: Asked,
}

/// Of whom a certificate is asked: with another one, failures of before say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    directory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roots: Option<String>,
}

impl Asked {
    pub(crate) fn of(acme: &Acme) -> Self {
        let Acme { directory, email, roots, .. } = acme.clone();
        Self { directory, email, roots }
    }

    pub(crate) fn is_same(&self, acme: &Acme) -> bool {
        *self == Self::of(acme)
    }
}

impl Files {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// From when to when the certificate of a name is valid; `None` where there is none that can
    /// be read.
    pub(crate) fn held(&self, stack: &StackName, name: &str) -> Option<Validity> {
        validity_of_pem(&fs::read_to_string(self.certificate(stack, name)).ok()?)
    }

    /// Keeps a certificate that was issued, in place of the one before.
    pub(crate) fn keep(
        &self,
        stack: &StackName,
        name: &str,
        chain: &str,
        key: &str,
    ) -> io::Result<()> {
        write(&self.certificate(stack, name), format!("{}\n{key}", chain.trim_end()).as_bytes())
    }

    /// What is known of a name. What cannot be read is as if there were nothing.
    pub(crate) fn record(&self, stack: &StackName, name: &str) -> Record {
        read(&self.certificate(stack, name).with_extension("json")).unwrap_or_default()
    }

    pub(crate) fn note(&self, stack: &StackName, name: &str, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        write(&self.certificate(stack, name).with_extension("json"), &text)
    }

    /// The account with an authority; `None` where there is none.
    pub(crate) fn account<T: DeserializeOwned>(&self, acme: &Acme) -> Option<T> {
        read(&self.account_file(acme))
    }

    pub(crate) fn keep_account<T: Serialize>(&self, acme: &Acme, account: &T) -> io::Result<()> {
        write(&self.account_file(acme), &serde_json::to_vec(account)?)
    }

    /// Forgets an account that its authority does not know any more.
    pub(crate) fn forget_account(&self, acme: &Acme) {
        // Where it stays it is refused once more, and this is tried again.
        let _ = fs::remove_file(self.account_file(acme));
    }

    fn certificate(&self, stack: &StackName, name: &str) -> PathBuf {
        // Appended to, as the name has dots of its own.
        self.root.join(issued_file(stack, name))
    }

    fn account_file(&self, acme: &Acme) -> PathBuf {
        let whose = format!("{}\n{}", acme.directory, acme.email.as_deref().unwrap_or_default());
        let name = Digest::of(whose.as_bytes()).short(32);
        self.root.join(format!("acme/accounts/{name}.json"))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Puts a file in place that only its owner can read, or leaves what is there.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn everything_is_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let stack: StackName = "shop".parse().unwrap();
        let acme = Acme {
            directory: "https://ca.example/".to_owned(),
            names: Vec::new(),
            email: None,
            roots: None,
        };
        files.keep(&stack, "a.b.example", "CHAIN\n", "KEY").unwrap();
        let record = Record { directory: Some(acme.directory.clone()), failure: None };
        files.note(&stack, "a.b.example", &record).unwrap();
        files.keep_account(&acme, &"credentials").unwrap();
        assert_eq!(files.record(&stack, "a.b.example"), record);
        assert_eq!(files.record(&stack, "c.b.example"), Record::default());
        assert_eq!(files.account::<String>(&acme).as_deref(), Some("credentials"));
        let other = Acme { email: Some("a@b.example".to_owned()), ..acme.clone() };
        assert_eq!(files.account::<String>(&other), None);
        let text = fs::read_to_string(root.path().join("acme/shop/a.b.example.pem")).unwrap();
        assert_eq!(text, "CHAIN\nKEY");
        let mut looked = 0;
        for directory in ["acme", "acme/shop", "acme/accounts"] {
            let mode = fs::metadata(root.path().join(directory)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{directory}");
            for file in fs::read_dir(root.path().join(directory)).unwrap() {
                let file = file.unwrap();
                if file.file_type().unwrap().is_file() {
                    looked += 1;
                    let mode = file.metadata().unwrap().permissions().mode();
                    assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
                }
            }
        }
        assert_eq!(looked, 3);
        files.forget_account(&acme);
        assert_eq!(files.account::<String>(&acme), None);
    }
}
