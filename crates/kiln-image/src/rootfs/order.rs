//! The order in which dpkg would configure packages.

use std::collections::BTreeMap;

use super::package::Package;

/// Positions of packages, each after those that it needs, as far as they don't need each other;
/// essential packages first, since nobody has to name them.
pub(super) fn configure_order(packages: &[Package<'_>]) -> Vec<usize> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let provided: Vec<Vec<_>> = packages.iter().map(|p| p.relations("provides")).collect();
    for (position, package) in packages.iter().enumerate() {
        by_name.entry(package.name).or_default().push(position);
        for relation in &provided[position] {
            by_name.entry(&relation.name).or_default().push(position);
        }
    }
    let mut roots: Vec<usize> = (0..packages.len()).collect();
    // Accounts and directories come from these two; dpkg's own installer configures them first.
    let first = ["base-passwd", "base-files"];
    let rank = |p: usize| {
        let package = &packages[p];
        let early = first.iter().position(|name| *name == package.name).unwrap_or(first.len());
        (early, package.field("essential") != "yes", package.name, &package.architecture)
    };
    roots.sort_by(|a, b| rank(*a).cmp(&rank(*b)));
    let mut order =
        Order { packages, by_name: &by_name, seen: vec![false; roots.len()], done: vec![] };
    for root in roots {
        order.visit(root);
    }
    order.done
}

struct Order<'a> {
    packages: &'a [Package<'a>],
    by_name: &'a BTreeMap<&'a str, Vec<usize>>,
    seen: Vec<bool>,
    done: Vec<usize>,
}

impl Order<'_> {
    /// Walks depth first with a stack of its own: chains of packages are as long as a hostile
    /// archive makes them.
    fn visit(&mut self, root: usize) {
        let mut stack = vec![(root, false)];
        while let Some((position, left)) = stack.pop() {
            if left {
                self.done.push(position);
                continue;
            }
            if std::mem::replace(&mut self.seen[position], true) {
                continue;
            }
            stack.push((position, true));
            let needs = self.packages[position].needs();
            for alternatives in needs.iter().rev() {
                let found = alternatives.iter().find_map(|name| self.by_name.get(name.as_str()));
                for needed in found.into_iter().flatten().rev() {
                    if !self.seen[*needed] {
                        stack.push((*needed, false));
                    }
                }
            }
        }
    }
}
