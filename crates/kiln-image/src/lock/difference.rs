//! What a lock says that another does not, as packages.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Lock, LockEntry, LockedPackage, Request};
use crate::debian::version::Version;

/// What became of one request between two locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryDifference {
    /// The request.
    pub request: Request,
    /// Whether the older lock had no entry for it.
    pub is_new: bool,
    /// Its packages that are not the same in both, by name.
    pub packages: Vec<PackageDifference>,
}

/// One package that is not the same in two locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageDifference {
    /// Its name.
    pub name: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The source package that it was built from, by which security advisories go.
    pub source: String,
    /// The version before; none if it was not there.
    pub from: Option<String>,
    /// The version after; none if it is no longer there.
    pub to: Option<String>,
    /// The suite that it comes from now, or came from last.
    pub suite: String,
    /// The third party's archive that it comes from now, or came from last.
    pub repository: Option<String>,
    /// What happened.
    pub change: PackageChange,
    /// Whether what is there now comes from the suite of security updates.
    pub security: bool,
}

/// What can happen to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageChange {
    /// It was not there.
    Added,
    /// It is no longer there.
    Removed,
    /// Its version is higher.
    Upgraded,
    /// Its version is lower.
    Downgraded,
    /// Its version is the same, its content or place is not.
    Altered,
}

impl Lock {
    /// What this lock says otherwise than `before`, for the requests that it has.
    pub fn since(&self, before: &Lock) -> Vec<EntryDifference> {
        let mut differences = Vec::new();
        for (request, entry) in &self.entries {
            let old = before.entries.get(request);
            let packages = compare(old, entry);
            if !packages.is_empty() {
                let is_new = old.is_none();
                differences.push(EntryDifference { request: request.clone(), is_new, packages });
            }
        }
        differences
    }
}

type ByName<'a> = BTreeMap<(&'a str, &'a str), &'a LockedPackage>;

fn by_name(entry: &LockEntry) -> ByName<'_> {
    // A package that goes from one architecture to all of them is still the same, so that its
    // architecture tells only those apart that stand beside each other.
    let names = entry.packages.iter().map(|p| {
        let beside = entry.packages.iter().any(|q| q.name == p.name && q != p);
        ((p.name.as_str(), if beside { p.architecture.as_str() } else { "" }), p)
    });
    names.collect()
}

fn compare(before: Option<&LockEntry>, after: &LockEntry) -> Vec<PackageDifference> {
    let old = before.map(by_name).unwrap_or_default();
    let new = by_name(after);
    let mut differences = Vec::new();
    for (key, package) in &new {
        let earlier = old.get(key).copied();
        if earlier != Some(package) {
            differences.push(difference(earlier, Some(package), package));
        }
    }
    for (key, package) in &old {
        if !new.contains_key(key) {
            differences.push(difference(Some(package), None, package));
        }
    }
    differences.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    differences
}

fn difference(
    from: Option<&LockedPackage>,
    to: Option<&LockedPackage>,
    last: &LockedPackage,
) -> PackageDifference {
    let change = match (from, to) {
        (None, _) => PackageChange::Added,
        (_, None) => PackageChange::Removed,
        (Some(from), Some(to)) => match order(&from.version, &to.version) {
            Ordering::Less => PackageChange::Upgraded,
            Ordering::Greater => PackageChange::Downgraded,
            Ordering::Equal => PackageChange::Altered,
        },
    };
    PackageDifference {
        name: last.name.clone(),
        architecture: last.architecture.clone(),
        source: last.source.clone().unwrap_or_else(|| last.name.clone()),
        from: from.map(|package| package.version.clone()),
        to: to.map(|package| package.version.clone()),
        suite: last.suite.clone(),
        repository: last.repository.clone(),
        change,
        security: to.is_some_and(|p| p.repository.is_none() && p.suite.ends_with("-security")),
    }
}

/// The order of two versions; of those that can't be read, that of their texts.
fn order(left: &str, right: &str) -> Ordering {
    match (left.parse::<Version>(), right.parse::<Version>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        _ => left.cmp(right),
    }
}
