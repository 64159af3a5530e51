//! What a search for packages has chosen so far, and what speaks against a further one.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::package::MultiArch;
use super::relation::{Dependency, Relation};
use super::resolve::{ResolveError, label, read, serves_scripts_only};
use super::universe::Universe;
use super::version::Version;

/// A dependency that has to hold, and who states it.
#[derive(Clone)]
pub(super) struct Goal {
    pub(super) dependency: Rc<Dependency>,
    /// A position in `State::selected`; none for the request itself.
    pub(super) parent: Option<usize>,
}

/// What has been chosen so far.
#[derive(Clone, Default)]
pub(super) struct State {
    /// Positions in the universe, and who asked for each (a position in this list).
    selected: Vec<(usize, Option<usize>)>,
    /// By name: positions in `selected`, one for each architecture.
    by_name: BTreeMap<String, Vec<usize>>,
    /// By virtual name: who provides it, in which version.
    provided: BTreeMap<String, Vec<(usize, Option<Version>)>>,
    /// By name of what must not be there: the relation and who states it.
    excluded: BTreeMap<String, Vec<(Relation, usize)>>,
    goals: VecDeque<Goal>,
    /// Dependencies on what only maintainer scripts call.
    tools: Vec<Goal>,
}

impl State {
    /// Adds something that has to hold.
    pub(super) fn ask(&mut self, dependency: Dependency, parent: Option<usize>) {
        self.goals.push_back(Goal { dependency: Rc::new(dependency), parent });
    }

    /// Lets what only maintainer scripts call count like anything else from here on.
    pub(super) fn take_up_tools(&mut self) {
        self.goals.extend(self.tools.drain(..));
    }

    pub(super) fn next_goal(&mut self) -> Option<Goal> {
        self.goals.pop_front()
    }

    /// The chosen packages, in the order in which they were chosen.
    pub(super) fn packages(&self) -> Vec<usize> {
        self.selected.iter().map(|(package, _)| *package).collect()
    }

    /// The package that was chosen as number `at`.
    pub(super) fn package_at(&self, at: usize) -> Option<usize> {
        self.selected.get(at).map(|(package, _)| *package)
    }

    /// The architecture of the package that states a goal.
    pub(super) fn architecture<'u>(&self, universe: &'u Universe, goal: &Goal) -> &'u str {
        let parent = goal.parent.map(|position| self.selected[position].0);
        parent.map_or(universe.native(), |package| universe.architecture(package))
    }

    /// From the package that was asked for to the one at `parent`, as they are shown.
    pub(super) fn chain(&self, universe: &Universe, parent: Option<usize>) -> Vec<String> {
        let mut chain = Vec::new();
        let mut next = parent;
        while let Some(position) = next {
            let (package, parent) = self.selected[position];
            chain.push(label(universe, package));
            next = parent;
        }
        chain.reverse();
        chain
    }

    /// Whether something that is chosen fulfils a goal.
    pub(super) fn satisfies(&self, universe: &Universe, goal: &Goal) -> bool {
        let architecture = self.architecture(universe, goal);
        let serves = |relation: &Relation, position: usize| {
            universe.serves(self.selected[position].0, relation, architecture)
        };
        goal.dependency.0.iter().any(|relation| {
            let real = self.by_name.get(&relation.name).into_iter().flatten().any(|&position| {
                let version = &universe.get(self.selected[position].0).version;
                relation.accepts(version) && serves(relation, position)
            });
            let provided = self.provided.get(&relation.name).into_iter().flatten();
            let mut provided = provided.filter(|(_, v)| relation.accepts_provided(v.as_ref()));
            real || provided.any(|(position, _)| serves(relation, *position))
        })
    }

    /// What among the chosen packages keeps `package` out.
    pub(super) fn obstacle(
        &self,
        universe: &Universe,
        package: usize,
    ) -> Result<Option<String>, ResolveError> {
        let candidate = universe.get(package);
        for &position in self.by_name.get(&candidate.name).into_iter().flatten() {
            if let Some(reason) = beside(universe, package, self.selected[position].0) {
                return Ok(Some(reason));
            }
        }
        for relation in read(&candidate.name, candidate.conflicts())? {
            if let Some(other) = self.chosen_match(universe, &relation, &candidate.name) {
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
                let by = self.selected[*by].0;
                // The same package of another architecture is no other package.
                let same = universe.get(by).name == candidate.name;
                if !same
                    && relation.accepts_provided(version.as_ref())
                    && excludes(universe, relation, package)
                {
                    let by = label(universe, by);
                    return Ok(Some(format!("{by} conflicts with {}", label(universe, package))));
                }
            }
        }
        Ok(None)
    }

    /// A chosen package, other than `own`, that a conflict means, really or virtually.
    fn chosen_match(&self, universe: &Universe, relation: &Relation, own: &str) -> Option<usize> {
        let real = self.by_name.get(&relation.name).into_iter().flatten();
        let real = real.map(|&position| self.selected[position].0);
        let real = real.filter(|&p| relation.accepts(&universe.get(p).version));
        let provided = self.provided.get(&relation.name).into_iter().flatten();
        let provided = provided.filter(|(_, v)| relation.accepts_provided(v.as_ref()));
        let provided = provided.map(|(position, _)| self.selected[*position].0);
        let mut others = real.chain(provided).filter(|&p| universe.get(p).name != own);
        others.find(|&p| excludes(universe, relation, p))
    }

    pub(super) fn select(
        &mut self,
        universe: &Universe,
        package: usize,
        parent: Option<usize>,
        keep_tools: bool,
    ) -> Result<(), ResolveError> {
        let chosen = universe.get(package);
        let position = self.selected.len();
        self.selected.push((package, parent));
        self.by_name.entry(chosen.name.clone()).or_default().push(position);
        for provided in read(&chosen.name, chosen.provides())? {
            let version = provided.version.map(|(_, version)| version);
            self.provided.entry(provided.name).or_default().push((position, version));
        }
        for relation in read(&chosen.name, chosen.conflicts())? {
            self.excluded.entry(relation.name.clone()).or_default().push((relation, position));
        }
        for dependency in read(&chosen.name, chosen.dependencies())? {
            let tool = !keep_tools && serves_scripts_only(&chosen.name, &dependency);
            let goal = Goal { dependency: Rc::new(dependency), parent: Some(position) };
            if tool {
                self.tools.push(goal);
            } else {
                self.goals.push_back(goal);
            }
        }
        Ok(())
    }
}

/// Why a package can't stand beside a chosen one of the same name.
fn beside(universe: &Universe, package: usize, chosen: usize) -> Option<String> {
    let (this, other) = (universe.get(package), universe.get(chosen));
    if universe.architecture(package) == universe.architecture(chosen) {
        return Some(format!("{} is chosen already", label(universe, chosen)));
    }
    let both = this.multi_arch == MultiArch::Same && other.multi_arch == MultiArch::Same;
    let fits = both && this.version == other.version;
    let (this, other) = (label(universe, package), label(universe, chosen));
    (!fits).then(|| format!("{this} can't stand beside {other}"))
}

/// Whether a conflict means a package, as far as its architecture goes. One without an
/// architecture means all of them.
fn excludes(universe: &Universe, relation: &Relation, package: usize) -> bool {
    match relation.architecture.as_deref() {
        None | Some("any") => true,
        Some("native") => universe.architecture(package) == universe.native(),
        Some(named) => universe.architecture(package) == named,
    }
}
