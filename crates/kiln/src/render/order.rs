//! The order in which changes happen, in words.

use std::collections::BTreeMap;

use kiln_model::change::{Action, Change};
use kiln_model::name::{ComponentId, Kind};
use kiln_model::quantity::Millis;
use kiln_model::spec::Server;
use kiln_model::spec::rollout::Strategy;

use super::changes::Sides;
use super::spec::counted;

/// The most components that are named one by one in a sentence.
const MOST_NAMES: usize = 4;

/// One sentence for each thing that happens, in order. With `builds`, images are built for it.
pub(crate) fn sentences(sides: &Sides<'_>, builds: bool) -> Vec<String> {
    let mut said = Vec::new();
    let of = |kind: Kind, action: Action| -> Vec<ComponentId> {
        let wanted = |c: &&Change| c.kind == kind && c.action == action;
        sides.differences().filter(wanted).map(Change::id).collect()
    };
    let both = |kind| [of(kind, Action::Create), of(kind, Action::Replace)].concat();
    let images = both(Kind::Image);
    if builds && !images.is_empty() {
        said.push(format!("{} locked and built, unless that was done before", are(&images)));
    }
    if let made @ [_, ..] = of(Kind::Network, Action::Create).as_slice() {
        said.push(format!("{} made", are(made)));
    }
    if let made @ [_, ..] = of(Kind::Network, Action::Replace).as_slice() {
        said.push(format!("{} made anew, beside the old", are(made)));
    }
    databases(sides, &mut said);
    servers(sides, &mut said);
    endpoints(sides, &mut said);
    let networks =
        [of(Kind::Network, Action::Replace), of(Kind::Network, Action::Destroy)].concat();
    if !networks.is_empty() {
        let old = if networks.len() == 1 { "the old one goes" } else { "the old ones go" };
        said.push(format!("{}: {old} when nothing is left inside", names(&networks)));
    }
    said
}

/// What becomes of databases, and of their data.
fn databases(sides: &Sides<'_>, said: &mut Vec<String>) {
    for change in sides.differences().filter(|c| c.kind == Kind::Database) {
        let id = change.id();
        said.push(match change.action {
            Action::Create => format!("{id}: an instance starts with an empty database"),
            Action::Keep => format!("{id}: its instances stay, and are handled as it says now"),
            Action::Replace if sides.crosses(&id) => format!(
                "{id}: an instance of the newer version receives the rows of the old one, which may \
                 take long; then clients are held for a moment while writes go over. From then on \
                 there is no way back to the older version"
            ),
            Action::Replace => format!(
                "{id}: a new instance receives the data; then clients are held for a moment while \
                 writes go over, and the old one goes"
            ),
            Action::Destroy => format!("{id}: its instances go, and the data is kept"),
        });
    }
}

/// Those that others connect to come first.
fn servers(sides: &Sides<'_>, said: &mut Vec<String>) {
    let ordered = upstream_first(sides);
    let changing = ordered.iter().filter(|c| c.action != Action::Destroy);
    said.extend(changing.filter_map(|change| {
        let server = sides.after.get(&change.id())?.spec.as_server()?;
        Some(server_sentence(sides, change, server))
    }));
    let gone: Vec<ComponentId> =
        ordered.iter().filter(|c| c.action == Action::Destroy).map(|c| c.id()).collect();
    if !gone.is_empty() {
        said.push(format!("{}: instances leave the rotation, drain and go", names(&gone)));
    }
}

/// The servers that differ, each behind those that it connects to and that differ too.
fn upstream_first<'a>(sides: &Sides<'a>) -> Vec<&'a Change> {
    let servers: BTreeMap<ComponentId, &Change> =
        sides.differences().filter(|c| c.kind == Kind::Server).map(|c| (c.id(), c)).collect();
    let mut waits: BTreeMap<&ComponentId, usize> = BTreeMap::new();
    let mut clients: BTreeMap<&ComponentId, Vec<&ComponentId>> = BTreeMap::new();
    for id in servers.keys() {
        let spec = sides.after.get(id).map(|sealed| &sealed.spec);
        let upstream = spec.map(|spec| spec.talks_to()).unwrap_or_default();
        let upstream = upstream.into_iter().filter_map(|to| servers.get_key_value(to));
        let count = upstream.map(|(to, _)| clients.entry(to).or_default().push(id)).count();
        waits.insert(id, count);
    }
    let free = waits.iter().filter(|(_, count)| **count == 0);
    let mut ordered: Vec<&ComponentId> = free.map(|(id, _)| *id).collect();
    let mut next = 0;
    while let Some(id) = ordered.get(next) {
        next += 1;
        for client in clients.remove(*id).unwrap_or_default() {
            let left = waits.entry(client).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                ordered.push(client);
            }
        }
    }
    ordered.into_iter().filter_map(|id| servers.get(id).copied()).collect()
}

fn server_sentence(sides: &Sides<'_>, change: &Change, server: &Server) -> String {
    let id = change.id();
    let new = counted(server.policy.replicas as usize, "new instance");
    let one = server.policy.replicas == 1;
    let verb = if one { "starts" } else { "start" };
    match change.action {
        Action::Create if one => format!("{id}: {new} starts, and serves when it is healthy"),
        Action::Create => format!("{id}: {new} start, and each serves when it is healthy"),
        Action::Keep => {
            let before = sides.before.components.get(&id).and_then(|c| c.spec.as_server());
            match before.map(|b| b.policy.replicas) {
                Some(count) if count != server.policy.replicas => {
                    format!("{id}: from {count} to {} instances", server.policy.replicas)
                }
                _ => format!("{id}: its instances stay, and are handled as it says now"),
            }
        }
        Action::Replace | Action::Destroy => replacement(&id, &new, verb, server),
    }
}

/// How the instances of a server are replaced.
fn replacement(id: &ComponentId, new: &str, verb: &str, server: &Server) -> String {
    let rollout = &server.policy.rollout;
    let replicas = server.policy.replicas;
    match &rollout.strategy {
        Strategy::Canary { steps } => {
            let shares: Vec<String> =
                steps.iter().map(|s| format!("{} % for {}", s.weight, s.hold)).collect();
            format!(
                "{id}: new instances get {} of the traffic, judged at each step; then {new} {} \
                 over and the old drain and go",
                shares.join(", "),
                if replicas == 1 { "takes" } else { "take" },
            )
        }
        Strategy::BlueGreen => {
            let switch = if rollout.overlap {
                "traffic moves in one step"
            } else {
                "traffic waits until the old have answered, and moves in one step"
            };
            let old = match rollout.keep {
                Millis(0) => "drain and go".to_owned(),
                keep => format!("are kept for {keep}"),
            };
            format!(
                "{id}: {new} {verb} beside the old; when all are healthy, {switch} and the old {old}"
            )
        }
        Strategy::Rolling { .. } if replicas == 1 => format!(
            "{id}: {new} {verb}; traffic moves to it when it is healthy, then the old drains \
             and goes"
        ),
        Strategy::Rolling { surge, unavailable: 0 } => format!(
            "{id}: {new} {verb}, {surge} at a time; traffic moves to each when it is healthy, \
             then an old one drains and goes"
        ),
        Strategy::Rolling { surge, unavailable } => format!(
            "{id}: {new} {verb}, {} at a time, while up to {unavailable} may be missing",
            surge + unavailable
        ),
    }
}

fn endpoints(sides: &Sides<'_>, said: &mut Vec<String>) {
    for change in sides.differences().filter(|c| c.kind == Kind::Endpoint) {
        let id = change.id();
        let after = sides.after.get(&id).and_then(|s| s.spec.as_endpoint());
        said.push(match (change.action, after) {
            (Action::Create, Some(endpoint)) => {
                format!("{id} listens on {}", endpoint.identity.listen)
            }
            (Action::Replace, Some(endpoint)) => format!(
                "{id} listens on {}, and then no longer where it did",
                endpoint.identity.listen
            ),
            (Action::Keep, _) => format!("{id} sends its traffic as it says now"),
            _ => format!("{id} no longer listens"),
        });
    }
}

/// `image.web is`, `image.api and image.web are`.
fn are(ids: &[ComponentId]) -> String {
    format!("{} {}", names(ids), if ids.len() == 1 { "is" } else { "are" })
}

fn names(ids: &[ComponentId]) -> String {
    let mut names: Vec<String> = ids.iter().take(MOST_NAMES).map(ToString::to_string).collect();
    if ids.len() > MOST_NAMES {
        names.truncate(MOST_NAMES - 1);
        names.push(format!("{} more", ids.len() - (MOST_NAMES - 1)));
    }
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        Some(last) => last,
        None => String::new(),
    }
}
