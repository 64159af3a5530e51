//! One entry of a `Packages` index.

use kiln_model::digest::Digest;

use super::control::{ControlError, Stanza, stanzas};
use super::relation::{
    Dependency, Relation, RelationError, is_package_name, parse_dependencies, parse_relations,
};
use super::version::{Version, VersionError};
use crate::checksum::{ChecksumError, from_hex};

/// A package that the archive offers. Relations are kept as text and read when asked for: an
/// index has tens of thousands of packages, of which a few hundred matter.
#[derive(Clone, Debug)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// The package's version.
    pub version: Version,
    /// An architecture, or `all`.
    pub architecture: String,
    /// The path of the `.deb` below the mirror's root.
    pub filename: String,
    /// The length of the `.deb` in bytes.
    pub size_bytes: u64,
    /// The checksum of the `.deb`.
    pub sha256: Digest,
    /// Which of the archives that were read offers it, as the caller counts them.
    pub archive: usize,
    /// How far the archive holds it to be part of a usual system: 0 for `required` to 4 for
    /// `extra` and for those that say nothing.
    pub priority: u8,
    /// The source package that it was built from, by which security advisories go.
    pub source: String,
    /// Whether each full system has it, so that other packages need not name it.
    pub essential: bool,
    /// How it stands beside packages of other architectures.
    pub multi_arch: MultiArch,
    /// Whether it is taken only where no other archive has what is needed.
    pub last_resort: bool,
    pre_depends: String,
    depends: String,
    recommends: String,
    provides: String,
    conflicts: String,
    breaks: String,
}

/// What a package says of other architectures in `Multi-Arch`
/// (<https://wiki.debian.org/MultiArch/Hints>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MultiArch {
    /// It serves packages of its own architecture, and stands alone.
    #[default]
    No,
    /// It can be there once for each architecture, all of one version.
    Same,
    /// It serves packages of any architecture.
    Foreign,
    /// It serves packages of any architecture that ask for it with `:any`.
    Allowed,
}

impl MultiArch {
    fn read(field: Option<&str>) -> Self {
        match field {
            Some("same") => Self::Same,
            Some("foreign") => Self::Foreign,
            Some("allowed") => Self::Allowed,
            _ => Self::No,
        }
    }
}

/// An index that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The syntax is wrong.
    #[error("the index can't be read")]
    Syntax(#[from] ControlError),
    /// A field is missing.
    #[error("package `{package}` has no field `{field}`")]
    Missing {
        /// The package's name, as far as it is known.
        package: String,
        /// The field.
        field: &'static str,
    },
    /// A name that no package can have, or a path that leads out of the archive.
    #[error("package `{package}` has the {field} `{value}`, which is not allowed")]
    Forbidden {
        /// The package's name.
        package: String,
        /// The field.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// The version is wrong.
    #[error("package `{package}` has a wrong version")]
    Version {
        /// The package's name.
        package: String,
        /// Why.
        source: VersionError,
    },
    /// The checksum is wrong.
    #[error("package `{package}` has a wrong checksum")]
    Checksum {
        /// The package's name.
        package: String,
        /// Why.
        source: ChecksumError,
    },
}

/// Reads a `Packages` index.
pub fn parse_index(text: &str, archive: usize) -> Result<Vec<Package>, IndexError> {
    stanzas(text).map(|stanza| Package::from_stanza(&stanza?, archive)).collect()
}

impl Package {
    fn from_stanza(stanza: &Stanza<'_>, archive: usize) -> Result<Self, IndexError> {
        let name = stanza.get("Package").unwrap_or_default().to_owned();
        let field = |field| {
            let missing = || IndexError::Missing { package: name.clone(), field };
            stanza.get(field).ok_or_else(missing)
        };
        let forbidden = |field, value: &str| IndexError::Forbidden {
            package: name.clone(),
            field,
            value: value.to_owned(),
        };
        if !is_package_name(&name) {
            return Err(forbidden("name", &name));
        }
        let size = field("Size")?;
        let filename = field("Filename")?;
        if !is_archive_path(filename) {
            return Err(forbidden("file name", filename));
        }
        let text = |field| stanza.get(field).unwrap_or_default().to_owned();
        Ok(Self {
            version: field("Version")?
                .parse()
                .map_err(|source| IndexError::Version { package: name.clone(), source })?,
            architecture: field("Architecture")?.to_owned(),
            size_bytes: size.parse().map_err(|_| forbidden("size", size))?,
            sha256: from_hex(field("SHA256")?)
                .map_err(|source| IndexError::Checksum { package: name.clone(), source })?,
            filename: filename.to_owned(),
            archive,
            priority: priority_rank(stanza.get("Priority")),
            source: source_name(stanza.get("Source"), &name),
            essential: stanza.get("Essential") == Some("yes"),
            multi_arch: MultiArch::read(stanza.get("Multi-Arch")),
            last_resort: false,
            pre_depends: text("Pre-Depends"),
            depends: text("Depends"),
            recommends: text("Recommends"),
            provides: text("Provides"),
            conflicts: text("Conflicts"),
            breaks: text("Breaks"),
            name,
        })
    }

    /// What the package needs: `Pre-Depends`, then `Depends`.
    pub fn dependencies(&self) -> Result<Vec<Dependency>, RelationError> {
        let mut all = parse_dependencies(&self.pre_depends)?;
        all.extend(parse_dependencies(&self.depends)?);
        Ok(all)
    }

    /// What the package is better with.
    pub fn recommends(&self) -> Result<Vec<Dependency>, RelationError> {
        parse_dependencies(&self.recommends)
    }

    /// Virtual packages that this one stands in for.
    pub fn provides(&self) -> Result<Vec<Relation>, RelationError> {
        parse_relations(&self.provides)
    }

    /// What must not be there beside the package: `Conflicts` and `Breaks`.
    pub fn conflicts(&self) -> Result<Vec<Relation>, RelationError> {
        let mut all = parse_relations(&self.conflicts)?;
        all.extend(parse_relations(&self.breaks)?);
        Ok(all)
    }
}

/// `Source` is left out where it is the package's own name, and may carry a version.
fn source_name(field: Option<&str>, package: &str) -> String {
    let name = field.and_then(|field| field.split([' ', '(']).next());
    name.filter(|name| is_package_name(name)).unwrap_or(package).to_owned()
}

fn priority_rank(priority: Option<&str>) -> u8 {
    match priority {
        Some("required") => 0,
        Some("important") => 1,
        Some("standard") => 2,
        Some("optional") => 3,
        _ => 4,
    }
}

/// Whether a path leads to a file below the archive's root and can stand in a URL as it is.
fn is_archive_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/+-._~:%".contains(c);
    !path.is_empty()
        && path.chars().all(plain)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(filename: &str) -> String {
        let sum = Digest::of(b"").hex();
        format!(
            "Package: a\nVersion: 1\nArchitecture: all\nFilename: {filename}\nSize: 3\n\
             SHA256: {sum}\nPre-Depends: p\nDepends: d | e\nConflicts: c\nBreaks: b (<< 2)\n"
        )
    }

    #[test]
    fn reads_relations() {
        let package = &parse_index(&entry("pool/a.deb"), 0).unwrap()[0];
        let needs: Vec<String> =
            package.dependencies().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(needs, ["p", "d | e"]);
        assert_eq!(package.conflicts().unwrap().len(), 2);
        assert_eq!((package.source.as_str(), package.multi_arch), ("a", MultiArch::No));
    }

    #[test]
    fn reads_what_it_was_built_from() {
        let text = entry("pool/a.deb") + "Source: src (2)\nMulti-Arch: same\nEssential: yes\n";
        let package = &parse_index(&text, 0).unwrap()[0];
        assert_eq!((package.source.as_str(), package.multi_arch), ("src", MultiArch::Same));
        assert!(package.essential);
    }

    #[test]
    fn refuses_paths_that_leave_the_archive() {
        for path in ["../x.deb", "/etc/x.deb", "a//b", "a/./b", "a b", "a?b", "a\u{e9}"] {
            let read = parse_index(&entry(path), 0);
            assert!(
                matches!(read, Err(IndexError::Forbidden { .. } | IndexError::Missing { .. })),
                "{path}"
            );
        }
    }
}
