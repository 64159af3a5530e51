//! Which packages a request needs: a deterministic search with backtracking.
//!
//! Dependencies are taken up in the order in which they are met, breadth first. For each, what is
//! chosen already is preferred, then the alternatives as they are written, each in its newest
//! version, then those who provide it. When no candidate is left, the last choice is taken back.
//! Recommended packages are never taken, essential ones only where something names them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use super::relation::{Dependency, Operator, Relation, RelationError};
use super::universe::Universe;
use super::version::{Version, VersionError};

/// How many packages may be tried before the search is given up.
const MAX_ATTEMPTS: usize = 50_000;

/// Packages that only maintainer scripts call. No such script runs, so a dependency on one of
/// these holds without it; who asks for one by name gets it.
const SCRIPT_TOOLS: [&str; 16] = [
    "adduser",
    "debconf",
    "debconf-2.0",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "lsb-base",
    "systemd-standalone-sysusers",
    "systemd-standalone-tmpfiles",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "sysvinit-utils",
    "tzdata-legacy",
    "ucf",
    "usr-is-merged",
    "usrmerge",
];

/// Single dependencies that serve only the maintainer scripts of the package that states them.
const SCRIPT_DEPENDENCIES: [(&str, &str); 1] = [("base-files", "awk")];

/// A request that can't be fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nobody offers a package of this name.
    #[error("there is no package `{name}`{}", suggestion(.nearest))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Names that look like it.
        nearest: Vec<String>,
    },
    /// The name is that of a virtual package.
    #[error("`{name}` is a virtual package; choose one that provides it: {}", .providers.join(", "))]
    Virtual {
        /// The name that was asked for.
        name: String,
        /// Who provides it.
        providers: Vec<String>,
    },
    /// The wanted version is none.
    #[error("the package `{request}` is asked for in a version that can't be read")]
    Version {
        /// What was asked for.
        request: String,
        /// Why it can't be read.
        source: VersionError,
    },
    /// A package's relations can't be read.
    #[error("package `{package}` has a relation that can't be read")]
    Relation {
        /// The package's name.
        package: String,
        /// Why.
        source: RelationError,
    },
    /// A dependency does not hold, whatever is chosen.
    #[error("the packages can't be installed together: {0}")]
    Unsatisfiable(Box<Conflict>),
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", nearest.join(", "))
    }
}

/// Why a dependency does not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// From the package that was asked for to the one that states the dependency, as
    /// `name version`.
    pub chain: Vec<String>,
    /// The dependency as the last package of the chain states it.
    pub dependency: String,
    /// What is wrong with each candidate.
    pub reasons: Vec<String>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for link in &self.chain {
            write!(f, "{link} -> ")?;
        }
        write!(f, "{}: {}", self.dependency, self.reasons.join("; "))
    }
}

/// Finds the packages that `request` needs, sorted by name. Each part of the request is a name, or
/// `name=version`.
pub fn resolve(universe: &Universe, request: &[String]) -> Result<Vec<usize>, ResolveError> {
    let mut state = State::default();
    for text in request {
        let relation = read_request(universe, text)?;
        state
            .goals
            .push_back(Goal { dependency: Rc::new(Dependency(vec![relation])), parent: None });
    }
    let mut selected: Vec<usize> =
        Search { universe, attempts: 0, first_failure: None }.run(state)?;
    selected.sort_by(|a, b| universe.get(*a).name.cmp(&universe.get(*b).name));
    Ok(selected)
}

fn read_request(universe: &Universe, text: &str) -> Result<Relation, ResolveError> {
    let (name, version) = match text.split_once('=') {
        None => (text, None),
        Some((name, version)) => {
            let version: Version = version
                .parse()
                .map_err(|source| ResolveError::Version { request: text.to_owned(), source })?;
            (name, Some((Operator::Equal, version)))
        }
    };
    if universe.versions(name).is_empty() {
        let mut providers: Vec<String> =
            universe.providers(name).iter().map(|(p, _)| universe.get(*p).name.clone()).collect();
        providers.dedup();
        let name = name.to_owned();
        return Err(if providers.is_empty() {
            ResolveError::Unknown { nearest: universe.nearest(&name), name }
        } else {
            ResolveError::Virtual { name, providers }
        });
    }
    Ok(Relation { name: name.to_owned(), architecture: None, version })
}

/// A dependency that has to hold, and who states it.
#[derive(Clone)]
struct Goal {
    dependency: Rc<Dependency>,
    /// A position in `State::selected`; none for the request itself.
    parent: Option<usize>,
}

/// What has been chosen so far.
#[derive(Clone, Default)]
struct State {
    /// Positions in the universe, and who asked for each (a position in this list).
    selected: Vec<(usize, Option<usize>)>,
    /// By name: a position in `selected`.
    by_name: BTreeMap<String, usize>,
    /// By virtual name: who provides it, in which version.
    provided: BTreeMap<String, Vec<(usize, Option<Version>)>>,
    /// By name of what must not be there: the relation and who states it.
    excluded: BTreeMap<String, Vec<(Relation, usize)>>,
    goals: VecDeque<Goal>,
}

struct Search<'a> {
    universe: &'a Universe,
    attempts: usize,
    first_failure: Option<Conflict>,
}

impl Search<'_> {
    fn run(&mut self, mut state: State) -> Result<Vec<usize>, ResolveError> {
        let mut choices: Vec<(State, Goal, VecDeque<usize>)> = Vec::new();
        while let Some(goal) = state.goals.pop_front() {
            if state.satisfies(self.universe, &goal.dependency) {
                continue;
            }
            let (mut candidates, reasons) = self.candidates(&state, &goal)?;
            let mut goal = goal;
            let next = loop {
                self.attempts += 1;
                if let Some(candidate) = candidates.pop_front() {
                    break candidate;
                }
                self.note_failure(&state, &goal, &reasons);
                match choices.pop() {
                    Some(earlier) if self.attempts < MAX_ATTEMPTS => {
                        (state, goal, candidates) = earlier;
                    }
                    _ => return Err(self.failure()),
                }
            };
            if !candidates.is_empty() {
                choices.push((state.clone(), goal.clone(), candidates));
            }
            state.select(self.universe, next, goal.parent)?;
        }
        Ok(state.selected.into_iter().map(|(package, _)| package).collect())
    }

    /// Who can fulfil a goal beside what is chosen, and what speaks against the others.
    fn candidates(
        &self,
        state: &State,
        goal: &Goal,
    ) -> Result<(VecDeque<usize>, Vec<String>), ResolveError> {
        let mut candidates = VecDeque::new();
        let mut reasons = Vec::new();
        for relation in &goal.dependency.0 {
            let fitting = self.universe.candidates(relation);
            if fitting.is_empty() {
                reasons.push(self.explain_absence(relation));
            }
            for package in fitting {
                match state.obstacle(self.universe, package)? {
                    None if !candidates.contains(&package) => candidates.push_back(package),
                    None => {}
                    Some(reason) => reasons.push(reason),
                }
            }
        }
        Ok((candidates, reasons))
    }

    fn explain_absence(&self, relation: &Relation) -> String {
        let versions = self.universe.versions(&relation.name);
        if versions.is_empty() {
            return format!("there is no package {}", relation.name);
        }
        let versions: Vec<&str> =
            versions.iter().map(|p| self.universe.get(*p).version.as_str()).collect();
        format!("the archive has {} {}", relation.name, versions.join(", "))
    }

    /// Keeps the first failure: it is the one that the preferred choices meet.
    fn note_failure(&mut self, state: &State, goal: &Goal, reasons: &[String]) {
        if self.first_failure.is_some() {
            return;
        }
        let mut chain = Vec::new();
        let mut next = goal.parent;
        while let Some(position) = next {
            let (package, parent) = state.selected[position];
            chain.push(label(self.universe, package));
            next = parent;
        }
        chain.reverse();
        let dependency = goal.dependency.to_string();
        self.first_failure = Some(Conflict { chain, dependency, reasons: reasons.to_vec() });
    }

    fn failure(&mut self) -> ResolveError {
        let conflict = self.first_failure.take().expect("a failure was noted before giving up");
        ResolveError::Unsatisfiable(Box::new(conflict))
    }
}

impl State {
    /// Whether something that is chosen fulfils a dependency.
    fn satisfies(&self, universe: &Universe, dependency: &Dependency) -> bool {
        dependency.0.iter().any(|relation| {
            let real = self.by_name.get(&relation.name).is_some_and(|&position| {
                relation.accepts(&universe.get(self.selected[position].0).version)
            });
            let provided = self.provided.get(&relation.name);
            real || provided.is_some_and(|all| {
                all.iter().any(|(_, version)| relation.accepts_provided(version.as_ref()))
            })
        })
    }

    /// What among the chosen packages keeps `package` out.
    fn obstacle(
        &self,
        universe: &Universe,
        package: usize,
    ) -> Result<Option<String>, ResolveError> {
        let candidate = universe.get(package);
        if let Some(&position) = self.by_name.get(&candidate.name) {
            let chosen = label(universe, self.selected[position].0);
            return Ok(Some(format!("{chosen} is chosen already")));
        }
        for relation in read(&candidate.name, candidate.conflicts())? {
            if let Some(other) = self.chosen_match(universe, &relation) {
                let (this, other) = (label(universe, package), label(universe, other));
                return Ok(Some(format!("{this} conflicts with {other}")));
            }
        }
        let mut names = vec![(candidate.name.clone(), Some(candidate.version.clone()))];
        for provided in read(&candidate.name, candidate.provides())? {
            names.push((provided.name, provided.version.map(|(_, version)| version)));
        }
        for (name, version) in names {
            for (relation, by) in self.excluded.get(&name).into_iter().flatten() {
                if relation.accepts_provided(version.as_ref()) {
                    let by = label(universe, self.selected[*by].0);
                    return Ok(Some(format!("{by} conflicts with {}", label(universe, package))));
                }
            }
        }
        Ok(None)
    }

    /// A chosen package that a relation means, really or virtually.
    fn chosen_match(&self, universe: &Universe, relation: &Relation) -> Option<usize> {
        let real = self.by_name.get(&relation.name).map(|&position| self.selected[position].0);
        if let Some(package) = real.filter(|&p| relation.accepts(&universe.get(p).version)) {
            return Some(package);
        }
        let provided = self.provided.get(&relation.name)?;
        let found = provided.iter().find(|(_, v)| relation.accepts_provided(v.as_ref()))?;
        Some(self.selected[found.0].0)
    }

    fn select(
        &mut self,
        universe: &Universe,
        package: usize,
        parent: Option<usize>,
    ) -> Result<(), ResolveError> {
        let chosen = universe.get(package);
        let position = self.selected.len();
        self.selected.push((package, parent));
        self.by_name.insert(chosen.name.clone(), position);
        for provided in read(&chosen.name, chosen.provides())? {
            let version = provided.version.map(|(_, version)| version);
            self.provided.entry(provided.name).or_default().push((position, version));
        }
        for relation in read(&chosen.name, chosen.conflicts())? {
            self.excluded.entry(relation.name.clone()).or_default().push((relation, position));
        }
        for dependency in read(&chosen.name, chosen.dependencies())? {
            if !serves_scripts_only(&chosen.name, &dependency) {
                let dependency = Rc::new(dependency);
                self.goals.push_back(Goal { dependency, parent: Some(position) });
            }
        }
        Ok(())
    }
}

fn serves_scripts_only(package: &str, dependency: &Dependency) -> bool {
    dependency.0.iter().any(|relation| {
        let name = relation.name.as_str();
        SCRIPT_TOOLS.contains(&name) || SCRIPT_DEPENDENCIES.contains(&(package, name))
    })
}

fn read<T>(package: &str, relations: Result<T, RelationError>) -> Result<T, ResolveError> {
    relations.map_err(|source| ResolveError::Relation { package: package.to_owned(), source })
}

fn label(universe: &Universe, package: usize) -> String {
    let package = universe.get(package);
    format!("{} {}", package.name, package.version)
}
