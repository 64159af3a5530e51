//! Relations between packages: `Depends`, `Provides`, `Conflicts` and their kin.
//!
//! The syntax is that of Debian Policy, section 7.1
//! (<https://www.debian.org/doc/debian-policy/ch-relationships.html>), as far as it occurs in
//! binary packages.

use std::fmt;
use std::str::FromStr;

use super::version::{Version, VersionError};

/// What a version must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Whether `version` stands in this relation to `bound`.
    pub fn holds(self, version: &Version, bound: &Version) -> bool {
        match self {
            Self::Earlier => version < bound,
            Self::EarlierOrEqual => version <= bound,
            Self::Equal => version == bound,
            Self::LaterOrEqual => version >= bound,
            Self::Later => version > bound,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }
}

/// A package by name, with or without a bound on its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The name of a package, real or virtual.
    pub name: String,
    /// What follows the name after a colon: `any`, `native` or an architecture.
    pub architecture: Option<String>,
    /// The bound on the version.
    pub version: Option<(Operator, Version)>,
}

/// Alternatives, of which one must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency(
    /// In order of preference; never empty.
    pub Vec<Relation>,
);

/// A relation that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RelationError {
    /// The text has another form.
    #[error("`{0}` is not of the form `name`, `name (>= version)` or alternatives of these")]
    Form(String),
    /// The version is none.
    #[error("the relation `{relation}` has a wrong version")]
    Version {
        /// The relation as it was written.
        relation: String,
        /// Why the version is wrong.
        source: VersionError,
    },
}

impl Relation {
    /// Whether a package of this name and version is meant.
    pub fn accepts(&self, version: &Version) -> bool {
        self.version.as_ref().is_none_or(|(operator, bound)| operator.holds(version, bound))
    }

    /// Whether what another package provides is meant. A provision without a version satisfies
    /// only a relation without a bound (Debian Policy, section 7.5).
    pub fn accepts_provided(&self, version: Option<&Version>) -> bool {
        version.map_or(self.version.is_none(), |version| self.accepts(version))
    }
}

impl FromStr for Relation {
    type Err = RelationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || RelationError::Form(text.trim().to_owned());
        let (head, bound) = match text.split_once('(') {
            None => (text, None),
            Some((head, tail)) => {
                let (inside, after) = tail.split_once(')').ok_or_else(form)?;
                if !after.trim().is_empty() {
                    return Err(form());
                }
                (head, Some(inside.trim()))
            }
        };
        let (name, architecture) = match head.trim().split_once(':') {
            None => (head.trim(), None),
            Some((name, architecture)) => (name, Some(architecture.to_owned())),
        };
        if !is_package_name(name) {
            return Err(form());
        }
        let version = bound.map(|bound| parse_bound(bound, text)).transpose()?;
        Ok(Self { name: name.to_owned(), architecture, version })
    }
}

fn parse_bound(bound: &str, relation: &str) -> Result<(Operator, Version), RelationError> {
    let (operator, rest) = [
        ("<<", Operator::Earlier),
        ("<=", Operator::EarlierOrEqual),
        (">=", Operator::LaterOrEqual),
        (">>", Operator::Later),
        ("=", Operator::Equal),
        // The two old forms, which the policy still has to be read as these.
        ("<", Operator::EarlierOrEqual),
        (">", Operator::LaterOrEqual),
    ]
    .iter()
    .find_map(|(sign, operator)| bound.strip_prefix(sign).map(|rest| (*operator, rest)))
    .ok_or_else(|| RelationError::Form(relation.trim().to_owned()))?;
    let version = rest.trim().parse().map_err(|source| RelationError::Version {
        relation: relation.trim().to_owned(),
        source,
    })?;
    Ok((operator, version))
}

/// Whether `name` can be the name of a package: Debian Policy, section 5.6.1, with capitals and
/// one-letter names let through, since third parties use them.
pub fn is_package_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
}

/// Reads a field such as `Depends`: dependencies set apart by commas.
pub fn parse_dependencies(field: &str) -> Result<Vec<Dependency>, RelationError> {
    let clauses = field.split(',').filter(|clause| !clause.trim().is_empty());
    clauses
        .map(|clause| clause.split('|').map(str::parse).collect::<Result<_, _>>().map(Dependency))
        .collect()
}

/// Reads a field without alternatives, such as `Provides` or `Conflicts`.
pub fn parse_relations(field: &str) -> Result<Vec<Relation>, RelationError> {
    field.split(',').filter(|clause| !clause.trim().is_empty()).map(str::parse).collect()
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(architecture) = &self.architecture {
            write!(f, ":{architecture}")?;
        }
        if let Some((operator, version)) = &self.version {
            write!(f, " ({} {version})", operator.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, relation) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{relation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_dependencies() {
        let field = "libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0, perl:any, x (=1:2-3),";
        let read = parse_dependencies(field).unwrap();
        let written: Vec<String> = read.iter().map(ToString::to_string).collect();
        assert_eq!(
            written,
            ["libc6 (>= 2.34)", "debconf (>= 0.5) | debconf-2.0", "perl:any", "x (= 1:2-3)"]
        );
    }

    #[test]
    fn refuses_what_has_no_sense() {
        for field in ["a (>= )", "a (2)", "a (>= 1", "a (>= 1) b", "a b", "| a", "../x"] {
            assert!(parse_dependencies(field).is_err(), "{field}");
        }
    }

    #[test]
    fn unversioned_provision_satisfies_no_bound() {
        let bound: Relation = "a (>= 1)".parse().unwrap();
        let free: Relation = "a".parse().unwrap();
        let two = "2".parse().unwrap();
        assert!(!bound.accepts_provided(None) && free.accepts_provided(None));
        assert!(bound.accepts_provided(Some(&two)) && free.accepts_provided(Some(&two)));
    }
}
