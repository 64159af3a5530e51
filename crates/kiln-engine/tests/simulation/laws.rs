//! The laws, checked at each effect and at the end.

use kiln_engine::journal::{Entry, Event, State};
use kiln_engine::store::Write;
use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, InstanceId, Kind};
use kiln_model::observed::Verdict;
use kiln_model::plan::{Creation, Evidence};
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::route::RouteTable;

use crate::world::{Body, World};

/// How long a broken instance may go without a new one being made, where nothing holds it up.
const HEAL_BOUND: Millis = Millis(1_500);

/// How long a request may wait for a server that sleeps, where nothing holds it up.
const WAKE_BOUND: Millis = Millis::seconds(5);

/// How long after its deadline a rollout may still be undecided.
const DEADLINE_SLACK: Millis = Millis::seconds(8);

/// Intent before effect; nothing is made twice, nothing that nobody declared.
pub fn creation(world: &mut World, creation: &Creation) {
    let (id, component, digest, number) = match creation {
        Creation::Network(n) => (&n.id, &n.component, n.digest, n.generation),
        Creation::Instance(i) => (&i.id, &i.component, i.digest, i.generation),
    };
    if world.bodies.contains_key(id) || world.networks.contains_key(id) {
        world.violation(format!("{id} is made twice"));
    }
    let Some(generation) = durable_generation(world, number) else {
        // The generation before the first names nothing, so nothing is made for it.
        return world
            .violation(format!("{id} is made for generation {number}, which is not on the disk"));
    };
    if generation.content.components.get(component).is_none_or(|c| c.digest != digest) {
        world.violation(format!("{id} is made and generation {number} does not name it"));
    }
    if let Creation::Instance(instance) = creation {
        if !world.networks.contains_key(&instance.network) {
            world.violation(format!("{id} is made in a network that does not exist"));
        }
        let same = |b: &&crate::world::Body| {
            b.seen.network == instance.network && b.seen.address == instance.address
        };
        if world.bodies.values().any(|b| same(&b)) {
            world.violation(format!("{id} is given an address that is taken"));
        }
        let now = world.now();
        let wanted = wanted(world, &generation, component);
        let alive = world.bodies.values().filter(|b| {
            b.seen.component == *component
                && b.seen.digest == digest
                && b.seen.network == instance.network
                && b.seen.is_running()
                && b.seen.draining_since.is_none()
                && b.broken_at.is_none()
                && b.seen.drift.is_empty()
                && (b.seen.is_ready() || now.since(b.seen.created_at) < Millis::seconds(3))
        });
        if alive.count() >= wanted as usize && !world.disturbed {
            world.violation(format!("{id} is one more than the {wanted} wanted"));
        }
    }
}

/// Only what is ready gets traffic, and it is never taken from all at once.
pub fn route(world: &mut World, table: &RouteTable) {
    if world.table.as_ref().is_some_and(|t| t.epoch >= table.epoch) {
        world.violation(format!("epoch {} is not a newer one", table.epoch));
    }
    let (rotation, now): (Vec<InstanceId>, _) =
        (table.in_rotation().cloned().collect(), world.now());
    for id in rotation {
        match world.bodies.get(&id) {
            None => world.violation(format!("{id} is in rotation and does not exist")),
            Some(body)
                if !body.seen.is_ready() && body.broken_at.is_none() && !falters(body, now) =>
            {
                world.violation(format!("{id} is in rotation and is not ready"));
            }
            Some(_) => {}
        }
    }
    // A stack that is being retired has nobody to serve, even where that is called off.
    world.served &= !table.endpoints.is_empty();
    let before =
        world.table.as_ref().is_some_and(|t| t.endpoints.iter().any(|e| !e.backends.is_empty()));
    let after = table.endpoints.iter().all(|e| !e.backends.is_empty() || e.sleeps);
    if !table.endpoints.iter().any(|e| e.backends.is_empty() && e.sleeps) {
        world.waiting = None;
    }
    if before && !after && !world.disturbed && !table.endpoints.is_empty() {
        world.violation("traffic is taken from the last instance");
    }
}

/// Whether an instance has turned unready so lately that nobody may have noticed.
fn falters(body: &Body, now: Timestamp) -> bool {
    matches!(body.seen.health, Verdict::Unready { since, .. } if now.since(since) < HEAL_BOUND)
}

/// One that may come back is let be within its bound, unless there are enough without it.
pub fn patience(world: &mut World, id: &InstanceId) {
    let Some(body) = world.bodies.get(id).cloned() else { return };
    let Verdict::Unready { since, .. } = body.seen.health else { return };
    if !body.seen.drift.is_empty() {
        return;
    }
    let state = state(world);
    let aim = state.aim().and_then(|number| durable_generation(world, number));
    let (id, digest) = (&body.seen.component, body.seen.digest);
    let Some(aim) =
        aim.filter(|g| g.content.components.get(id).is_some_and(|c| c.digest == digest))
    else {
        return;
    };
    // How it is handled is said by the generation that is aimed at, not by the one it was made for.
    let declared = aim.content.components.get(id).and_then(|c| c.spec.as_server());
    let bound = declared.and_then(|server| server.policy.health.replace_after);
    let may_come_back = bound.is_some_and(|bound| world.now().since(since) < bound);
    let wanted = wanted(world, &aim, id) as usize;
    let there = world.bodies.values().filter(|b| {
        b.seen.component == *id
            && b.seen.digest == digest
            && b.seen.is_running()
            && b.seen.draining_since.is_none()
    });
    let moved = world.networks.values().filter(|n| n.component.kind == Kind::Network).count() > 1;
    if may_come_back && !moved && there.count() <= wanted {
        world.violation(format!("{} is given up before its bound", body.seen.id));
    }
}

/// Nothing is drained or destroyed that still gets new traffic.
pub fn ending(world: &mut World, id: &InstanceId, what: &str) {
    let routed = world.table.as_ref().is_some_and(|t| t.in_rotation().any(|i| i == id));
    if routed {
        world.violation(format!("{id} is {what} and still in rotation"));
    }
}

/// No request is dropped: what is destroyed has answered, or had its time, or was broken.
pub fn not_answering(world: &mut World, id: &InstanceId) {
    world.settle();
    let now = world.now();
    let answering = world.in_flight.iter().any(|f| f.instance == *id);
    let Some(body) = world.bodies.get(id) else { return };
    let had_its_time =
        body.seen.draining_since.is_some_and(|since| now.since(since) >= Millis::seconds(10));
    if answering && !had_its_time && body.seen.is_running() {
        world.violation(format!("{id} is destroyed and drops a request"));
    }
    world.in_flight.retain(|f| f.instance != *id);
}

/// Evidence is kept of just those that have drifted and whose policy says so, which is that of all
/// web servers here.
pub fn evidence(world: &mut World, id: &InstanceId, evidence: Evidence) {
    let Some(body) = world.bodies.get(id).cloned() else { return };
    let drifted = !body.seen.drift.is_empty();
    let web = body.seen.component.name == "web";
    // A stack without a generation, or that is being retired, has no policies, and what is ended by
    // then may be gone when it has some.
    let active = state(world).active.is_some();
    let declared = active
        && world.durable.iter().all(|write| match write {
            Write::Generation(g) => g.content.components.contains_key(&body.seen.component),
            Write::Entry(_) => true,
        });
    if evidence == Evidence::Kept && !(drifted && web) {
        world.violation(format!("evidence of {id} is kept without a reason"));
    }
    if evidence == Evidence::None && drifted && web && declared {
        world.violation(format!("{id} has drifted, and no evidence is kept"));
    }
}

/// A network is ended when nobody is in it.
pub fn network_ending(world: &mut World, id: &InstanceId) {
    if world.bodies.values().any(|b| b.seen.network == *id) {
        world.violation(format!("{id} is destroyed with instances in it"));
    }
    let routed = world.table.as_ref().is_some_and(|t| t.networks.iter().any(|n| n.network == *id));
    if routed {
        world.violation(format!("{id} is destroyed and the gateway is in it"));
    }
}

/// What must hold at any time.
pub fn always(world: &mut World) {
    let (state, now) = (state(world), world.now());
    if let Some(rollout) = &state.rollout
        && now.since(rollout.deadline) > DEADLINE_SLACK
    {
        world.violation(format!("the rollout of {} stalls", rollout.generation));
    }
    if let Some(since) = world.waiting
        && now.since(since.max(decided(world))) > WAKE_BOUND
        && state.rollout.is_none()
        && !world.crashed
        && !world.disturbed
    {
        world.violation("what waits for a server that sleeps is not heard");
    }
    let aim = state.aim().and_then(|number| durable_generation(world, number));
    let named =
        |id: &ComponentId| aim.as_ref().is_some_and(|g| g.content.components.contains_key(id));
    // What the generation before did not name has been wanted again since its fate only.
    let decided = decided(world);
    let late: Vec<InstanceId> = world
        .bodies
        .values()
        .filter(|b| b.broken_at.is_some_and(|at| now.since(at.max(decided)) > HEAL_BOUND))
        .filter(|b| b.seen.draining_since.is_none() && named(&b.seen.component))
        .map(|b| b.seen.id.clone())
        .collect();
    for id in late {
        if !world.crashed && state.rollout.is_none() {
            world.violation(format!("{id} is broken and nobody noticed"));
        }
    }
    let unfit: Vec<InstanceId> = world
        .table
        .iter()
        .flat_map(RouteTable::in_rotation)
        .filter_map(|id| world.bodies.get(id))
        .filter(|b| {
            matches!(b.seen.health, Verdict::Unready { since, .. }
            if now.since(since.max(decided)) > HEAL_BOUND)
        })
        .map(|b| b.seen.id.clone())
        .collect();
    for id in unfit {
        if !world.crashed && state.rollout.is_none() {
            world.violation(format!("{id} is unready and still in rotation"));
        }
    }
}

/// At rest, what is there is the newest active generation, and nothing else.
pub fn at_rest(world: &mut World) {
    let state = state(world);
    let desired = state.active.and_then(|n| durable_generation(world, n));
    let nothing = Generation::none("shop".parse().unwrap());
    let desired = desired.unwrap_or(nothing);
    let mut problems = Vec::new();
    for (id, component, server) in desired.content.servers() {
        let wanted = wanted(world, &desired, id) as usize;
        if let Some(scale) = server.policy.scale.as_ref().filter(|_| !state.scale.contains_key(id))
            && !(scale.min as usize..=scale.max as usize).contains(&wanted)
        {
            problems.push(format!("{id} wants {wanted}, which is out of bounds"));
        }
        let there = world.bodies.values().filter(|b| {
            b.seen.component == *id && b.seen.digest == component.digest && b.seen.is_ready()
        });
        let there = there.count();
        if there != wanted {
            problems.push(format!("{id} has {there} instances, not {wanted}"));
        }
    }
    let named = |id: &ComponentId| desired.content.components.get(id).map(|c| c.digest);
    for body in world.bodies.values() {
        if named(&body.seen.component) != Some(body.seen.digest) {
            problems.push(format!("{} is left over", body.seen.id));
        }
        if !body.seen.drift.is_empty() {
            problems.push(format!("{} has drifted and is still there", body.seen.id));
        }
    }
    for network in world.networks.values() {
        if named(&network.component) != Some(network.digest) {
            problems.push(format!("{} is left over", network.id));
        }
    }
    let endpoints = desired.content.of_kind(Kind::Endpoint).count();
    let routed = world.table.as_ref().map_or(0, |t| t.endpoints.len());
    if endpoints != routed {
        problems.push(format!("{routed} endpoints are routed, not {endpoints}"));
    }
    problems.extend(hasty_falls(world));
    for problem in problems {
        world.violation(format!("at rest {problem}"));
    }
}

/// How many instances of a server are wanted, by what is on the disk.
fn wanted(world: &mut World, generation: &Generation, id: &ComponentId) -> u32 {
    let state = state(world);
    let parent = generation.parent.and_then(|number| durable_generation(world, number));
    let wanted = kiln_engine::engine::wanted(&state, generation, parent.as_ref());
    let declared = generation.content.components.get(id).and_then(|c| c.spec.as_server());
    let replicas = declared.map_or(0, |server| server.policy.replicas);
    wanted.get(id).copied().unwrap_or(replicas)
}

/// Counts that fell sooner after they had fallen than any policy of the scenario allows.
fn hasty_falls(world: &World) -> Vec<String> {
    let falls = world.durable.iter().filter_map(|write| match write {
        Write::Entry(Entry { at, event: Event::Sized { component, was, count, because } })
            if count < was && because != "given back" =>
        {
            Some((component, *at))
        }
        _ => None,
    });
    let falls: Vec<(&ComponentId, Timestamp)> = falls.collect();
    let hasty = falls
        .windows(2)
        .filter(|pair| pair[0].0 == pair[1].0 && pair[1].1.since(pair[0].1) < Millis::seconds(1));
    hasty.map(|pair| format!("{} fell twice within a second", pair[0].0)).collect()
}

/// What the journal on the disk says.
pub fn state(world: &mut World) -> State {
    let entries: Vec<_> = world
        .durable
        .iter()
        .chain(&world.promised)
        .filter_map(|write| match write {
            Write::Entry(entry) if !matches!(entry.event, Event::Retired { .. }) => {
                Some(entry.clone())
            }
            _ => None,
        })
        .collect();
    match State::derive(&entries) {
        Ok(state) => state,
        Err(error) => {
            world.violation(error);
            State::default()
        }
    }
}

/// When a generation's fate was last written down.
fn decided(world: &World) -> Timestamp {
    let fates = world.durable.iter().filter_map(|write| match write {
        Write::Entry(Entry { at, event: Event::Abandoned { .. } | Event::Active { .. } }) => {
            Some(*at)
        }
        _ => None,
    });
    fates.fold(Timestamp(0), Timestamp::max)
}

fn durable_generation(world: &World, number: u64) -> Option<Generation> {
    world.durable.iter().find_map(|write| match write {
        Write::Generation(generation) if generation.number == number => {
            Some((**generation).clone())
        }
        _ => None,
    })
}
