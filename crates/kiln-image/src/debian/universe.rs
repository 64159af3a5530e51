//! All packages that a set of archives offers, ready to be searched by name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::package::{MultiArch, Package};
use super::relation::{Relation, RelationError};
use super::version::Version;

/// The packages of some indexes that can run on one architecture, perhaps with others beside.
#[derive(Debug, Default)]
pub struct Universe {
    native: String,
    packages: Vec<Package>,
    /// By name: positions, those of the native architecture first, then the newest version, among
    /// equals the first archive; those of the last resort behind all.
    by_name: BTreeMap<String, Vec<usize>>,
    /// By virtual name: who provides it, the most usual package first.
    providers: BTreeMap<String, Vec<(usize, Option<Version>)>>,
}

/// A package whose relations can't be read.
#[derive(Debug, thiserror::Error)]
#[error("package `{package}` has a relation that can't be read")]
pub struct UniverseError {
    /// The package's name.
    pub package: String,
    /// Why.
    pub source: RelationError,
}

impl Universe {
    /// Takes those of `packages` that are of `architecture` or of all.
    pub fn new(packages: Vec<Package>, architecture: &str) -> Result<Self, UniverseError> {
        Self::with_foreign(packages, architecture, &BTreeSet::new())
    }

    /// Takes those of `packages` that are of the `native` architecture, of all, or of one of the
    /// `foreign` architectures.
    pub fn with_foreign(
        packages: Vec<Package>,
        native: &str,
        foreign: &BTreeSet<String>,
    ) -> Result<Self, UniverseError> {
        let mut universe = Self { native: native.to_owned(), ..Self::default() };
        let runs = |p: &Package| {
            p.architecture == native || p.architecture == "all" || foreign.contains(&p.architecture)
        };
        // The index of each architecture lists the packages for all: once is enough.
        let mut seen = BTreeSet::new();
        let mut first = |p: &Package| {
            let version = p.version.as_str().to_owned();
            p.architecture != "all" || seen.insert((p.name.clone(), version, p.archive))
        };
        universe.packages = packages.into_iter().filter(|p| runs(p) && first(p)).collect();
        for (position, package) in universe.packages.iter().enumerate() {
            universe.by_name.entry(package.name.clone()).or_default().push(position);
            let provides = package
                .provides()
                .map_err(|source| UniverseError { package: package.name.clone(), source })?;
            for Relation { name, version, .. } in provides {
                let version = version.map(|(_, version)| version);
                universe.providers.entry(name).or_default().push((position, version));
            }
        }
        universe.sort();
        Ok(universe)
    }

    fn sort(&mut self) {
        let (all, native) = (&self.packages, self.native.as_str());
        let rank = |p: usize| {
            let foreign =
                !matches!(all[p].architecture.as_str(), "all") && all[p].architecture != native;
            (all[p].last_resort, foreign)
        };
        for positions in self.by_name.values_mut() {
            positions.sort_by_key(|&p| (rank(p), Reverse(&all[p].version), all[p].archive));
        }
        for providers in self.providers.values_mut() {
            let key = |p: usize| (rank(p), all[p].priority, &all[p].name, Reverse(&all[p].version));
            providers.sort_by(|a, b| key(a.0).cmp(&key(b.0)));
        }
    }

    /// The architecture of programs that need no other.
    pub fn native(&self) -> &str {
        &self.native
    }

    /// The architecture that a package counts as: one for all counts as native.
    pub fn architecture(&self, position: usize) -> &str {
        match self.packages[position].architecture.as_str() {
            "all" => &self.native,
            own => own,
        }
    }

    /// The newest version of each package without which no full system is.
    pub fn essential(&self) -> Vec<usize> {
        let newest = self.by_name.values().filter_map(|positions| positions.first().copied());
        let is_essential =
            |p: &usize| self.packages[*p].essential && self.architecture(*p) == self.native;
        newest.filter(is_essential).collect()
    }

    /// The package at a position.
    pub fn get(&self, position: usize) -> &Package {
        &self.packages[position]
    }

    /// The versions of a real package, newest first.
    pub fn versions(&self, name: &str) -> &[usize] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Who provides a virtual package.
    pub fn providers(&self, name: &str) -> &[(usize, Option<Version>)] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Those who satisfy a relation that a package of `architecture` states, in order of
    /// preference: the real package, then providers.
    pub fn candidates(&self, relation: &Relation, architecture: &str) -> Vec<usize> {
        let fits = |p: &usize| self.serves(*p, relation, architecture);
        let real = self.versions(&relation.name).iter().copied();
        let real = real.filter(|&p| relation.accepts(&self.packages[p].version));
        let provided = self.providers(&relation.name).iter();
        let provided = provided.filter(|(_, v)| relation.accepts_provided(v.as_ref()));
        real.chain(provided.map(|(position, _)| *position)).filter(fits).collect()
    }

    /// Whether a package is of an architecture that a relation, stated by a package of
    /// `architecture`, can mean.
    pub fn serves(&self, position: usize, relation: &Relation, architecture: &str) -> bool {
        let own = self.architecture(position);
        let multi_arch = self.packages[position].multi_arch;
        match relation.architecture.as_deref() {
            None => own == architecture || multi_arch == MultiArch::Foreign,
            Some("any") => {
                let anybody = matches!(multi_arch, MultiArch::Foreign | MultiArch::Allowed);
                own == architecture || anybody
            }
            Some("native") => own == self.native,
            Some(named) => own == named,
        }
    }

    /// Up to three names that look like `name`, the nearest first.
    pub fn nearest(&self, name: &str) -> Vec<String> {
        let limit = (name.len() / 3).max(2);
        let mut near: Vec<(usize, &str)> = self
            .by_name
            .keys()
            .filter(|other| other.len().abs_diff(name.len()) <= limit)
            .map(|other| (edit_distance(name, other), other.as_str()))
            .filter(|(distance, _)| *distance <= limit)
            .collect();
        near.sort_unstable();
        near.into_iter().take(3).map(|(_, other)| other.to_owned()).collect()
    }
}

/// The least number of letters to be put in, taken out or changed (Levenshtein).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let changed = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::edit_distance;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance("nginx", "nginx"), 0);
        assert_eq!(edit_distance("ngnix", "nginx"), 2);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
