//! Cycles of components that talk to each other: none of them could be brought up first.

use std::collections::BTreeMap;

use kiln_model::name::ComponentId;

use super::memo::cycle;
use super::world::{Talk, World};
use crate::syntax::span::Span;

/// Reports a cycle of `connects`. Of cycles that share components one is reported.
pub(super) fn check_cycles(world: &World<'_>) {
    let talks = world.talks.borrow();
    let mut next: BTreeMap<&ComponentId, Vec<&Talk>> = BTreeMap::new();
    for talk in talks.iter() {
        next.entry(&talk.from).or_default().push(talk);
    }
    let mut done: BTreeMap<&ComponentId, bool> = BTreeMap::new();
    for root in next.keys().copied() {
        if let Some(path) = find(root, &next, &mut done) {
            let names: Vec<String> = path.iter().map(|talk| talk.from.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let spans: Vec<Span> = path.iter().map(|talk| talk.span).collect();
            let help = "one of them must do without the other: a server is made after those that \
                        it connects to";
            world.report(cycle(&names, &spans).with_help(help));
        }
    }
}

/// The references of a cycle that is reached from `root`. In `done` a component is `false` while
/// it stands on the path at hand. The walk has a stack of its own, since chains may be long.
fn find<'t>(
    root: &'t ComponentId,
    next: &BTreeMap<&'t ComponentId, Vec<&'t Talk>>,
    done: &mut BTreeMap<&'t ComponentId, bool>,
) -> Option<Vec<&'t Talk>> {
    if done.contains_key(root) {
        return None;
    }
    let mut path: Vec<&Talk> = Vec::new();
    let mut open: Vec<(&ComponentId, usize)> = vec![(root, 0)];
    done.insert(root, false);
    let mut found = None;
    while let Some((id, position)) = open.last_mut() {
        let talk = next.get(*id).and_then(|talks| talks.get(*position)).copied();
        *position += 1;
        let Some(talk) = talk else {
            done.insert(*id, true);
            open.pop();
            path.pop();
            continue;
        };
        match done.get(&talk.to) {
            Some(true) => {}
            Some(false) => {
                let start = path.iter().position(|step| step.from == talk.to);
                let start = start.unwrap_or(path.len());
                let members = path[start..].iter().copied().chain([talk]);
                found = found.or_else(|| Some(members.collect()));
            }
            None => {
                done.insert(&talk.to, false);
                path.push(talk);
                open.push((&talk.to, 0));
            }
        }
    }
    found
}
