//! Which packages a request needs: a deterministic search with backtracking.
//!
//! Dependencies are taken up in the order in which they are met, breadth first. For each, what is
//! chosen already is preferred, then the alternatives as they are written, each in its newest
//! version, then those who provide it; what is there as a last resort comes behind all others.
//! When no candidate is left, the last choice is taken back. Essential packages are taken only
//! where something names them. What packages recommend is taken, where it is wished for, as far as
//! it fits beside what was chosen without it.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use super::relation::{Dependency, Operator, Relation, RelationError};
use super::state::{Goal, State};
use super::universe::Universe;
use super::version::{Version, VersionError};

/// How many packages may be tried before the search is given up.
const MAX_ATTEMPTS: usize = 50_000;
/// How many may be tried for one package that is only recommended.
const MAX_ATTEMPTS_FOR_EXTRAS: usize = 500;

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

/// What is asked for, and how freely it is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// Packages: a name, `name:architecture`, `name=version`.
    pub packages: &'a [String],
    /// Whether what packages recommend is taken too.
    pub recommends: bool,
    /// Whether what only maintainer scripts call is taken like anything else.
    pub keep_tools: bool,
    /// Whether to find beside it what maintainer scripts need to run: what they call, and the
    /// essential packages, which they need not name.
    pub script_tools: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The packages, as positions in the universe, by name.
    pub packages: Vec<usize>,
    /// What only maintainer scripts need beside them, by name.
    pub tools: Vec<usize>,
}

/// Finds the packages that `request` needs, sorted by name.
pub fn resolve(universe: &Universe, request: &[String]) -> Result<Vec<usize>, ResolveError> {
    let wish = Wish { packages: request, ..Wish::default() };
    resolve_wish(universe, wish).map(|found| found.packages)
}

/// Finds the packages that a wish needs.
pub fn resolve_wish(universe: &Universe, wish: Wish<'_>) -> Result<Found, ResolveError> {
    let mut state = State::default();
    for text in wish.packages {
        state.ask(Dependency(vec![read_request(universe, text)?]), None);
    }
    let search = |keep_tools, bound| Search {
        universe,
        keep_tools,
        bound,
        attempts: 0,
        first_failure: None,
    };
    let mut state = search(wish.keep_tools, MAX_ATTEMPTS).run(state)?;
    if wish.recommends {
        state = add_recommended(universe, state, wish.keep_tools)?;
    }
    let mut packages = state.packages();
    let mut tools = Vec::new();
    if wish.script_tools {
        for position in universe.essential() {
            let name = universe.get(position).name.clone();
            state.ask(Dependency(vec![Relation { name, architecture: None, version: None }]), None);
        }
        state.take_up_tools();
        let state = search(true, MAX_ATTEMPTS).run(state)?;
        tools = state.packages().split_off(packages.len());
    }
    let order = |p: &usize| (universe.get(*p).name.clone(), universe.architecture(*p).to_owned());
    packages.sort_by_key(order);
    tools.sort_by_key(order);
    Ok(Found { packages, tools })
}

/// Takes what the chosen packages recommend, and what that recommends, each as far as it fits.
fn add_recommended(
    universe: &Universe,
    mut state: State,
    keep_tools: bool,
) -> Result<State, ResolveError> {
    let mut next = 0;
    while let Some(package) = state.package_at(next) {
        let name = &universe.get(package).name;
        for dependency in read(name, universe.get(package).recommends())? {
            if !keep_tools && serves_scripts_only(name, &dependency) {
                continue;
            }
            let mut tried = state.clone();
            tried.ask(dependency, Some(next));
            let bound = MAX_ATTEMPTS_FOR_EXTRAS;
            let mut search =
                Search { universe, keep_tools, bound, attempts: 0, first_failure: None };
            match search.run(tried) {
                Ok(extended) => state = extended,
                Err(ResolveError::Unsatisfiable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        next += 1;
    }
    Ok(state)
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
    let (name, architecture) = name.split_once(':').unwrap_or((name, universe.native()));
    let serves = |p: &usize| universe.architecture(*p) == architecture;
    if !universe.versions(name).iter().any(serves) {
        let mut providers: Vec<String> =
            universe.providers(name).iter().map(|(p, _)| universe.get(*p).name.clone()).collect();
        providers.dedup();
        let others: Vec<String> = universe
            .versions(name)
            .iter()
            .map(|p| format!("{name}:{}", universe.architecture(*p)))
            .collect();
        let shown = text.split('=').next().unwrap_or(text).to_owned();
        return Err(if !others.is_empty() {
            ResolveError::Unknown { nearest: others, name: shown }
        } else if providers.is_empty() {
            ResolveError::Unknown { nearest: universe.nearest(name), name: shown }
        } else {
            ResolveError::Virtual { name: shown, providers }
        });
    }
    let architecture = Some(architecture.to_owned());
    Ok(Relation { name: name.to_owned(), architecture, version })
}

struct Search<'a> {
    universe: &'a Universe,
    keep_tools: bool,
    bound: usize,
    attempts: usize,
    first_failure: Option<Conflict>,
}

impl Search<'_> {
    fn run(&mut self, mut state: State) -> Result<State, ResolveError> {
        let mut choices: Vec<(State, Goal, VecDeque<usize>)> = Vec::new();
        while let Some(goal) = state.next_goal() {
            if state.satisfies(self.universe, &goal) {
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
                    Some(earlier) if self.attempts < self.bound => {
                        (state, goal, candidates) = earlier;
                    }
                    _ => return Err(self.failure()),
                }
            };
            if !candidates.is_empty() {
                choices.push((state.clone(), goal.clone(), candidates));
            }
            state.select(self.universe, next, goal.parent, self.keep_tools)?;
        }
        Ok(state)
    }

    /// Who can fulfil a goal beside what is chosen, and what speaks against the others.
    fn candidates(
        &self,
        state: &State,
        goal: &Goal,
    ) -> Result<(VecDeque<usize>, Vec<String>), ResolveError> {
        let mut candidates = Vec::new();
        let mut reasons = Vec::new();
        let architecture = state.architecture(self.universe, goal);
        for relation in &goal.dependency.0 {
            let fitting = self.universe.candidates(relation, architecture);
            if fitting.is_empty() {
                reasons.push(self.explain_absence(relation, architecture));
            }
            for package in fitting {
                match state.obstacle(self.universe, package)? {
                    None if !candidates.contains(&package) => candidates.push(package),
                    None => {}
                    Some(reason) => reasons.push(reason),
                }
            }
        }
        candidates.sort_by_key(|p| self.universe.get(*p).last_resort);
        Ok((candidates.into(), reasons))
    }

    fn explain_absence(&self, relation: &Relation, architecture: &str) -> String {
        let versions = self.universe.versions(&relation.name);
        if versions.is_empty() {
            return format!("there is no package {}", relation.name);
        }
        let serves = |p: &&usize| self.universe.serves(**p, relation, architecture);
        let fitting: Vec<&str> = versions
            .iter()
            .filter(serves)
            .map(|p| self.universe.get(*p).version.as_str())
            .collect();
        if fitting.is_empty() {
            let wanted = relation.architecture.as_deref().filter(|a| *a != "any");
            let wanted = wanted.unwrap_or(architecture);
            return format!("the archive has no {} for {wanted}", relation.name);
        }
        format!("the archive has {} {}", relation.name, fitting.join(", "))
    }

    /// Keeps the first failure: it is the one that the preferred choices meet.
    fn note_failure(&mut self, state: &State, goal: &Goal, reasons: &[String]) {
        if self.first_failure.is_some() {
            return;
        }
        let chain = state.chain(self.universe, goal.parent);
        let dependency = shown(&goal.dependency, self.universe.native());
        self.first_failure = Some(Conflict { chain, dependency, reasons: reasons.to_vec() });
    }

    fn failure(&mut self) -> ResolveError {
        let conflict = self.first_failure.take().expect("a failure was noted before giving up");
        ResolveError::Unsatisfiable(Box::new(conflict))
    }
}

/// A dependency as a person writes it: without the architecture that goes without saying.
fn shown(dependency: &Rc<Dependency>, native: &str) -> String {
    dependency.to_string().replace(&format!(":{native}"), "")
}

pub(super) fn serves_scripts_only(package: &str, dependency: &Dependency) -> bool {
    dependency.0.iter().any(|relation| {
        let name = relation.name.as_str();
        SCRIPT_TOOLS.contains(&name) || SCRIPT_DEPENDENCIES.contains(&(package, name))
    })
}

pub(super) fn read<T>(
    package: &str,
    relations: Result<T, RelationError>,
) -> Result<T, ResolveError> {
    relations.map_err(|source| ResolveError::Relation { package: package.to_owned(), source })
}

/// A package in messages; its architecture is said where it is a foreign one.
pub(super) fn label(universe: &Universe, position: usize) -> String {
    let package = universe.get(position);
    let architecture = universe.architecture(position);
    if architecture == universe.native() {
        format!("{} {}", package.name, package.version)
    } else {
        format!("{}:{architecture} {}", package.name, package.version)
    }
}
