//! What an image was made of, as its recipe and its lock say.

use std::fmt::Write as _;

use kiln_model::digest::Digest;
use kiln_model::spec::image::{Base, Recipe, Step};

use crate::debian::date::parse_date;
use crate::lock::{Lock, LockedPackage, Request};

/// Everything that went into an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Materials<'a> {
    /// The suite that the packages are of.
    pub suite: Option<&'a str>,
    /// Its packages, in the lock's order.
    pub packages: Vec<Package<'a>>,
    /// What else it was made of, in the recipe's order.
    pub others: Vec<Other<'a>>,
    /// When the newest archive was made that the lock was resolved from, in seconds since 1970; 0
    /// where there is none. It is the only time that a bill of materials holds.
    pub locked_at: u64,
}

/// One package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package<'a> {
    /// As it is locked.
    pub locked: &'a LockedPackage,
    /// The archive that it came from, where that is known.
    pub mirror: Option<&'a str>,
}

/// Something that is no package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other<'a> {
    /// Files of the stack, and the digest of all of them.
    Copied {
        /// Path below the stack's directory.
        from: &'a str,
        /// Where they went.
        to: &'a str,
        /// Of names, contents, modes and links.
        digest: Digest,
    },
    /// A file whose content stands in the configuration.
    Inline {
        /// Where it went.
        path: &'a str,
        /// Of its content.
        digest: Digest,
    },
    /// A base that is below the stack's directory.
    Base {
        /// Its path.
        path: &'a str,
        /// Of all that is in it.
        digest: Digest,
    },
    /// A base that is known by a name only.
    Named {
        /// A registry's reference, or a component.
        name: &'a str,
        /// The manifest that the reference is locked to; none of a component, which has its own
        /// statements.
        manifest: Option<Digest>,
    },
}

impl<'a> Materials<'a> {
    /// What a recipe is made of with a lock, for an architecture.
    pub fn of(recipe: &'a Recipe, lock: &'a Lock, architecture: &str) -> Self {
        let request = Request::of(recipe, architecture);
        let entry = request.and_then(|request| lock.entry(&request));
        let mut packages = Vec::new();
        let mut locked_at = 0;
        if let Some(entry) = entry {
            for locked in &entry.packages {
                let from = entry.archives.iter().find(|archive| archive.suite == locked.suite);
                packages.push(Package { locked, mirror: from.map(|from| from.mirror.as_str()) });
            }
            let made = entry.archives.iter().filter_map(|archive| parse_date(&archive.date));
            locked_at = made.max().and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        }
        let mut others = Vec::new();
        let mut suite = None;
        match &recipe.base {
            Base::Debian { suite: name } => suite = Some(name.as_str()),
            Base::Scratch => {}
            Base::Oci { reference } => {
                let manifest = lock.manifest(reference, architecture);
                others.push(Other::Named { name: reference, manifest });
            }
            Base::OciLayout { path, digest } | Base::Tarball { path, digest } => {
                others.push(Other::Base { path, digest: *digest });
            }
            Base::Image { image } => {
                others.push(Other::Named { name: &image.id.name, manifest: None });
            }
        }
        for step in &recipe.steps {
            match step {
                Step::Copy { from, to, digest, .. } => {
                    others.push(Other::Copied { from, to, digest: *digest });
                }
                Step::File { path, content, .. } => {
                    let digest = Digest::of(content.as_bytes());
                    others.push(Other::Inline { path, digest });
                }
                Step::Take { image, .. } => {
                    others.push(Other::Named { name: &image.id.name, manifest: None });
                }
                _ => {}
            }
        }
        Self { suite, packages, others, locked_at }
    }
}

/// The package URL of a locked package (<https://github.com/package-url/purl-spec>, type `deb`).
pub fn purl(package: &LockedPackage, suite: Option<&str>) -> String {
    let distro = suite.map(|suite| format!("&distro={}", encode(suite))).unwrap_or_default();
    format!(
        "pkg:deb/debian/{}@{}?arch={}{distro}",
        encode(&package.name),
        encode(&package.version),
        encode(&package.architecture)
    )
}

/// Percent-encodes all but what a package URL may hold as it is.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_encoded() {
        let package = LockedPackage {
            name: "libstdc++6".into(),
            version: "1:12.2.0-14+deb12u1~x".into(),
            architecture: "amd64".into(),
            sha256: Digest::of(b""),
            size: 0,
            suite: "bookworm-security".into(),
            repository: None,
            source: Some("gcc-12".into()),
            tool: false,
            filename: "pool/x.deb".into(),
        };
        assert_eq!(
            purl(&package, Some("bookworm")),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1~x?arch=amd64&distro=bookworm"
        );
    }
}
