//! Logins, from the files in which docker, podman and skopeo keep them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Under which names logins of Docker's own registry are kept.
const DOCKER_NAMES: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

/// A file of logins that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It can't be read.
    #[error("can't read the logins in {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It makes no sense.
    #[error("the logins in {path} can't be used; log in again to write them anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// One login makes no sense.
    #[error("the login for {host} in {path} can't be used; log in again to write it anew")]
    Login {
        /// The file.
        path: PathBuf,
        /// The registry.
        host: String,
    },
}

/// Where logins are kept. They are read when one is asked for.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
}

/// A name and a password. It is never shown.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Credentials {
    /// The files that the environment names: `REGISTRY_AUTH_FILE` alone where it is set, else
    /// podman's below `XDG_RUNTIME_DIR` and docker's in `DOCKER_CONFIG` or the home directory.
    pub fn from_env() -> Self {
        let set =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(file) = set("REGISTRY_AUTH_FILE") {
            return Self { files: vec![file] };
        }
        let podman = set("XDG_RUNTIME_DIR").map(|path| path.join("containers/auth.json"));
        let docker = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
        let docker = docker.map(|path| path.join("config.json"));
        Self { files: podman.into_iter().chain(docker).collect() }
    }

    /// Logins of this file alone.
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        Self { files: vec![path.into()] }
    }

    /// The login for a repository of a registry.
    pub(super) fn login(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Login>, CredentialsError> {
        for path in &self.files {
            let text = match fs::read(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(CredentialsError::Io { path: path.clone(), source }),
            };
            let document: Document = serde_json::from_slice(&text)
                .map_err(|source| CredentialsError::Damaged { path: path.clone(), source })?;
            if let Some(login) = find(&document, path, host, repository)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

/// The entry of the longest name that covers the repository.
fn find(
    document: &Document,
    path: &Path,
    host: &str,
    repository: &str,
) -> Result<Option<Login>, CredentialsError> {
    let bare = |key: &str| {
        let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
        let key = key.trim_end_matches('/');
        let key = key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key).to_owned();
        if DOCKER_NAMES.contains(&key.as_str()) { "docker.io".to_owned() } else { key }
    };
    let whole = format!("{host}/{repository}/");
    let covers = |key: &String| whole.starts_with(&format!("{}/", bare(key)));
    let entry =
        document.auths.iter().filter(|(key, _)| covers(key)).max_by_key(|(key, _)| key.len());
    let Some((_, entry)) = entry else { return Ok(None) };
    if entry.auth.is_empty() {
        // A helper program keeps the login, or there is none.
        let (user, password) = (entry.username.clone(), entry.password.clone());
        return Ok((!user.is_empty()).then_some(Login { user, password }));
    }
    let decoded = STANDARD.decode(entry.auth.trim()).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => {
            let password = password.trim_end_matches('\0').to_owned();
            Ok(Some(Login { user: user.to_owned(), password }))
        }
        None => Err(CredentialsError::Login { path: path.into(), host: host.to_owned() }),
    }
}

impl Login {
    /// The value of the `Authorization` header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_that_covers_the_repository_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let auth = |text: &str| STANDARD.encode(text);
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},
                "r.example:5000":{{"auth":"{}"}},"r.example:5000/team":{{"auth":"{}"}},
                "helper.example":{{}}, "bad.example":{{"auth":"!"}} }},"credsStore":"x"}}"#,
            auth("hub:a:b"),
            auth("all:c"),
            auth("team:d"),
        );
        fs::write(&path, text).unwrap();
        let logins = Credentials::of_file(&path);
        let login = |host: &str, repository: &str| {
            let login = logins.login(host, repository).unwrap();
            login.map(|login| format!("{} {}", login.user, login.password))
        };
        assert_eq!(login("docker.io", "library/a").as_deref(), Some("hub a:b"));
        assert_eq!(login("r.example:5000", "other/a").as_deref(), Some("all c"));
        assert_eq!(login("r.example:5000", "team/a").as_deref(), Some("team d"));
        assert_eq!(login("r.example:5000", "teams").as_deref(), Some("all c"));
        assert_eq!(login("r.example", "a"), None);
        assert_eq!(login("helper.example", "a"), None);
        assert!(logins.login("bad.example", "a").is_err());
        fs::write(&path, "{").unwrap();
        assert!(logins.login("r.example", "a").is_err());
    }
}
