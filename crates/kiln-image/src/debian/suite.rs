//! The suites that images can start from, and the keys that sign them.

use std::collections::BTreeSet;
use std::fmt;

use kiln_model::spec::image::{Pocket, Repository};

use crate::openpgp::{Keyring, KeyringError};

/// The official archive's root where nothing else is said.
pub const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// The official security archive's root where nothing else is said.
pub const DEFAULT_SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";

/// Suites that are not released, and so have no pockets.
const ROLLING: [&str; 3] = ["sid", "unstable", "experimental"];

/// Public keys of the official archives, from Debian's package `debian-archive-keyring`.
const ARCHIVE_KEYS: [&[u8]; 6] = [
    include_bytes!("../../keys/debian-archive-bookworm-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-bookworm-security-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-bookworm-stable.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-security-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-stable.gpg"),
];

/// Where archives are fetched from and whose signatures count.
#[derive(Clone, Debug)]
pub struct Mirrors {
    /// Root of the main archive, without a slash at the end.
    pub main: String,
    /// Root of the security archive, without a slash at the end.
    pub security: String,
    /// Keys that may sign releases.
    pub keyring: Keyring,
}

impl Mirrors {
    /// The official mirrors, or those that `KILN_DEBIAN_MIRROR` and `KILN_DEBIAN_SECURITY_MIRROR`
    /// name (an empty variable counts as unset), with Debian's own keys.
    pub fn from_env() -> Result<Self, KeyringError> {
        let named = |name, default: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.as_deref().unwrap_or(default).trim_end_matches('/').to_owned()
        };
        Ok(Self {
            main: named("KILN_DEBIAN_MIRROR", DEFAULT_MIRROR),
            security: named("KILN_DEBIAN_SECURITY_MIRROR", DEFAULT_SECURITY_MIRROR),
            keyring: debian_keyring()?,
        })
    }

    /// The archives that make up a suite with some of its pockets.
    pub fn archives(&self, suite: &str, pockets: &BTreeSet<Pocket>) -> Vec<ArchiveSource> {
        let source = |mirror: &String, suite: String| ArchiveSource {
            mirror: mirror.clone(),
            suite,
            components: BTreeSet::from(["main".to_owned()]),
            repository: None,
            last_resort: false,
        };
        let mut archives = vec![source(&self.main, suite.to_owned())];
        // What is still being put together has none.
        let pockets = pockets.iter().filter(|_| !ROLLING.contains(&suite));
        archives.extend(pockets.map(|pocket| match pocket {
            Pocket::Updates => source(&self.main, format!("{suite}-updates")),
            Pocket::Security => source(&self.security, format!("{suite}-security")),
            Pocket::Backports => ArchiveSource {
                last_resort: true,
                ..source(&self.main, format!("{suite}-backports"))
            },
        }));
        archives
    }
}

/// The pockets where a recipe names none.
pub fn default_pockets() -> BTreeSet<Pocket> {
    BTreeSet::from([Pocket::Updates, Pocket::Security])
}

/// One suite of one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSource {
    /// The mirror's root.
    pub mirror: String,
    /// The suite's code name.
    pub suite: String,
    /// The components of it that are read.
    pub components: BTreeSet<String>,
    /// The name that a recipe gives a third party's archive.
    pub repository: Option<String>,
    /// Whether its packages are taken only where no other archive has what is needed.
    pub last_resort: bool,
}

impl ArchiveSource {
    /// The archive of a `repository` block.
    pub fn third_party(repository: &Repository) -> Self {
        Self {
            mirror: repository.url.trim_end_matches('/').to_owned(),
            suite: repository.suite.clone(),
            components: repository.components.clone(),
            repository: Some(repository.name.clone()),
            last_resort: false,
        }
    }
}

impl fmt::Display for ArchiveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.repository {
            write!(f, "repository \"{name}\" ")?;
        }
        write!(f, "{} at {}", self.suite, self.mirror)
    }
}

/// The keys that sign Debian's releases. A release is also signed with its successor's key, so
/// that all of them are taken for all suites, as Debian's own tools do.
pub fn debian_keyring() -> Result<Keyring, KeyringError> {
    let mut keyring = Keyring::default();
    ARCHIVE_KEYS.iter().try_for_each(|file| keyring.add(file))?;
    Ok(keyring)
}

/// Debian's name of the architecture that this program runs on.
pub fn native_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        other => other,
    }
}
