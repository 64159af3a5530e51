//! Who talks to whom: cycles, of which no member could be brought up first, and addresses that are
//! named but may not be connected to.

use std::collections::BTreeMap;

use kiln_model::name::ComponentId;
use rustc_hash::FxHashSet;

use super::memo::cycle;
use super::world::{Talk, World};
use crate::diagnostic::Diagnostic;
use crate::syntax::span::Span;

/// Warns of servers that name the address of one that they do not connect to: what they send there
/// is refused.
pub(super) fn check_mentions(world: &World<'_>) {
    let talks = world.talks.borrow();
    let allowed: FxHashSet<(&ComponentId, &ComponentId)> =
        talks.iter().map(|talk| (&talk.from, &talk.to)).collect();
    for Talk { from, to, span } in world.mentions.borrow().iter() {
        if !allowed.contains(&(from, to)) {
            let summary = format!("{from} names the address of {to} and does not connect to it");
            world.report(
                Diagnostic::warning(*span, summary)
                    .with_label("what it sends there is refused")
                    .with_help(format!("add it: connects = [{to}]")),
            );
        }
    }
}

/// Reports cycles of `connects`, and of images on images.
pub(super) fn check_cycles(world: &World<'_>) {
    let servers = "one of them must do without the other: a server is made after those that it \
                   connects to";
    check_cycle(world, &world.talks.borrow(), servers);
    let images = "an image is made after those that it stands on or copies from: one of them must \
                  do without the other";
    check_cycle(world, &world.bases.borrow(), images);
}

/// Reports a cycle. Of cycles that share components one is reported.
fn check_cycle(world: &World<'_>, talks: &[Talk], help: &str) {
    let mut next: BTreeMap<&ComponentId, Vec<&Talk>> = BTreeMap::new();
    for talk in talks {
        next.entry(&talk.from).or_default().push(talk);
    }
    let mut done: BTreeMap<&ComponentId, bool> = BTreeMap::new();
    for root in next.keys().copied() {
        if let Some(path) = find(root, &next, &mut done) {
            let names: Vec<String> = path.iter().map(|talk| talk.from.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let spans: Vec<Span> = path.iter().map(|talk| talk.span).collect();
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
