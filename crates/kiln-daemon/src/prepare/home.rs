//! Where a stack's configuration lives, so that another directory does not take its place by
//! accident.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_model::name::StackName;
use serde::{Deserialize, Serialize};

use crate::root::Root;

/// Where a stack was applied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The directory, without symbolic links.
    pub directory: PathBuf,
    /// The repository that it is in, by its remote.
    pub remote: Option<String>,
    /// Where it is in the repository.
    pub path: Option<String>,
}

/// Why a stack may not be applied from here.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another directory has the name.
    #[error("stack {stack} belongs to {home}, and this is {here}")]
    Elsewhere {
        /// The stack.
        stack: StackName,
        /// Where it was applied from.
        home: PathBuf,
        /// The directory that was named.
        here: PathBuf,
    },
    /// The note can't be read or written.
    #[error("{path} cannot be read or written")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Home {
    /// The home that `directory` would be.
    pub fn of(directory: &Path) -> Self {
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        let remote = git(&directory, &["config", "--get", "remote.origin.url"]);
        let path = git(&directory, &["rev-parse", "--show-prefix"]);
        Self { directory, remote, path }
    }

    /// Where `stack` was applied from last; `None` where it never was.
    pub fn known(root: &Root, stack: &StackName) -> Result<Option<Self>, HomeError> {
        let path = file(root, stack);
        let unusable = |source| HomeError::Unusable { path: path.clone(), source };
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(unusable)?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|e| unusable(e.into()))
    }

    /// Whether `other` is the same place, or another checkout of it.
    fn agrees_with(&self, other: &Self) -> bool {
        let same_checkout = self.remote.is_some() && self.remote == other.remote;
        self.directory == other.directory || (same_checkout && self.path == other.path)
    }

    /// Refuses to apply `stack` from here if it was applied from elsewhere, unless `adopt`.
    pub fn check(&self, root: &Root, stack: &StackName, adopt: bool) -> Result<(), HomeError> {
        let Some(known) = Self::known(root, stack)? else { return Ok(()) };
        if adopt || self.agrees_with(&known) {
            return Ok(());
        }
        Err(HomeError::Elsewhere {
            stack: stack.clone(),
            home: known.directory,
            here: self.directory.clone(),
        })
    }

    /// Notes that `stack` was applied from here.
    pub fn keep(&self, root: &Root, stack: &StackName) -> Result<(), HomeError> {
        let path = file(root, stack);
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        fs::create_dir_all(root.store().join("homes"))
            .and(text)
            .and_then(|text| fs::write(&beside, text))
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|source| HomeError::Unusable { path, source })
    }
}

fn file(root: &Root, stack: &StackName) -> PathBuf {
    root.store().join("homes").join(format!("{stack}.json"))
}

/// What git says in `directory`; `None` where it is no repository or there is no git.
pub(super) fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        // Root reads the repository of another user here, and runs nothing of it.
        .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=", "-C"])
        .arg(directory)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_directory_needs_to_adopt() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("root"));
        let [one, two] = ["one", "two"].map(|name| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            Home::of(&path)
        });
        let stack: StackName = "shop".parse().unwrap();
        fs::create_dir(root.path()).unwrap();
        one.check(&root, &stack, false).unwrap();
        one.keep(&root, &stack).unwrap();
        one.check(&root, &stack, false).unwrap();
        let error = two.check(&root, &stack, false).unwrap_err();
        assert!(matches!(error, HomeError::Elsewhere { .. }), "{error}");
        two.check(&root, &stack, true).unwrap();
    }

    #[test]
    fn two_checkouts_of_one_place_agree() {
        let of = |directory: &str, path: &str| Home {
            directory: directory.into(),
            remote: Some("https://example.org/shop".to_owned()),
            path: Some(path.to_owned()),
        };
        assert!(of("/a", "stack/").agrees_with(&of("/b", "stack/")));
        assert!(!of("/a", "stack/").agrees_with(&of("/b", "other/")));
    }
}
