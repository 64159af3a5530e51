//! The suites that images can start from, and the keys that sign them.

use std::fmt;

use crate::openpgp::{Keyring, KeyringError};

/// The official archive's root where nothing else is said.
pub const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// The official security archive's root where nothing else is said.
pub const DEFAULT_SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";

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

    /// The archives that make up a suite: the release itself, its updates, its security updates.
    pub fn archives(&self, suite: &str) -> [ArchiveSource; 3] {
        let source = |mirror: &String, suite| ArchiveSource { mirror: mirror.clone(), suite };
        [
            source(&self.main, suite.to_owned()),
            source(&self.main, format!("{suite}-updates")),
            source(&self.security, format!("{suite}-security")),
        ]
    }
}

/// One suite of one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSource {
    /// The mirror's root.
    pub mirror: String,
    /// The suite's code name.
    pub suite: String,
}

impl fmt::Display for ArchiveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
