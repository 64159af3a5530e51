//! What people do to a stack, and what befalls it, from a seed.

use kiln_engine::actor::Actor;
use kiln_engine::engine::{Handle, Proposal};
use kiln_model::digest::Digest;
use kiln_model::drift::{Aspect, Drift};
use kiln_model::fixture::{endpoint, generation, id, image, network, server};
use kiln_model::generation::{Content, Origin};
use kiln_model::observed::{Ending, Phase, Verdict};
use kiln_model::quantity::{Amount, Millis};
use kiln_model::spec::rollout::{CanaryStep, Rollout, Strategy};
use kiln_model::spec::scale::{Scale, Targets};

use crate::laws;
use crate::rng::Rng;
use crate::world::{InFlight, Shared};

/// How long instances may be kept that were replaced.
pub const KEEP: Millis = Millis(800);

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Deed {
    /// A stack is applied.
    Apply(Box<Content>),
    /// The generation before is brought back.
    Rollback,
    /// An instance is killed.
    Kill,
    /// An instance is tampered with, and serves on.
    Tamper,
    /// An instance fails its health check for good.
    Sicken,
    /// An instance fails its health check for a while, or for long.
    Falter(Option<u64>),
    /// A count is pinned, or given back.
    Scale(Option<u32>),
    /// So many requests a second come for the web servers.
    Demand(u64),
    /// The rollout under way is cancelled.
    Cancel,
    /// The stack is retired.
    Destroy,
    /// The engine is killed so many steps later.
    Crash(u64),
    /// Nothing for a while.
    Rest(u64),
}

/// The deeds of a seed, and whether instances are disturbed.
pub fn deeds(seed: u64, shared: &Shared) -> Vec<Deed> {
    let mut rng = Rng::new(seed, "deeds");
    // In half of the seeds no instance is disturbed, and not one request may fail.
    let disturbed = rng.one_in(2);
    shared.lock().disturbed = disturbed;
    let mut deeds = vec![Deed::Apply(Box::new(content(&mut rng, shared, false)))];
    for _ in 0..rng.below(6) + 2 {
        if rng.one_in(2) {
            deeds.push(Deed::Crash(rng.below(40) + 1));
        }
        if rng.one_in(2) {
            deeds.push(Deed::Rest(rng.below(3_000)));
        }
        deeds.push(match rng.below(15) {
            0..=5 => {
                let bad = rng.one_in(4);
                Deed::Apply(Box::new(content(&mut rng, shared, bad)))
            }
            6 => Deed::Rollback,
            7 if disturbed => Deed::Kill,
            8 if disturbed => Deed::Sicken,
            14 => Deed::Tamper,
            12 | 13 if disturbed => {
                let lasts = rng.below(4) > 0;
                Deed::Falter(lasts.then(|| rng.below(4_000)))
            }
            9 => Deed::Scale(Some(u32::try_from(rng.below(4)).unwrap() + 1)),
            10 => Deed::Cancel,
            11 if rng.one_in(3) => Deed::Destroy,
            12 | 13 => Deed::Demand(rng.below(8) * 100),
            _ => Deed::Scale(None),
        });
    }
    deeds
}

/// A stack: an API server and web servers that use it, behind an endpoint.
fn content(rng: &mut Rng, shared: &Shared, bad: bool) -> Content {
    let release = format!("v{}", rng.below(3));
    // Of the bad ones some get healthy, and fail what they are asked.
    let erring = bad && rng.one_in(3);
    let release = match (bad, erring) {
        (_, true) => format!("erring {release}"),
        (true, false) => format!("bad {release}"),
        (false, false) => release,
    };
    let cidr = if rng.one_in(4) { "10.1.0.0/24" } else { "10.0.0.0/24" };
    let rollout = rollout(rng);
    let replicas = u32::try_from(rng.below(3)).unwrap() + 1;
    let mut web = server("web").replicas(replicas).rollout(rollout).quarantine();
    if rng.one_in(2) {
        web = web.replace_after(Millis::seconds(2));
    }
    let web = if rng.one_in(2) { web.scale(scale(rng)) } else { web };
    let mut specs = vec![image("web", &release), network("front", cidr)];
    if rng.one_in(4) {
        specs.push(web.spec());
    } else {
        specs.push(server("api").deadline(Millis::seconds(3)).spec());
        specs.push(web.connects("api").spec());
    }
    let listen = if rng.one_in(6) { "127.0.0.1:9090" } else { "127.0.0.1:8080" };
    specs.push(endpoint("shop", listen, "web"));
    let content = generation(1, specs).content;
    if bad {
        let image: Digest = content.images[&id("image.web")];
        let mut world = shared.lock();
        if erring { world.erring.push(image) } else { world.bad.push(image) }
    }
    content
}

/// A way of replacing.
fn rollout(rng: &mut Rng) -> Rollout {
    let step = |weight, hold| CanaryStep { weight, hold: Millis(hold) };
    let strategy = match rng.below(4) {
        0 => Strategy::BlueGreen,
        1 => Strategy::Canary { steps: vec![step(20, rng.below(400)), step(50, rng.below(400))] },
        surge => Strategy::Rolling { surge: u32::from(surge == 3) + 1, unavailable: 0 },
    };
    Rollout {
        strategy,
        keep: Millis(if rng.one_in(2) { KEEP.0 } else { 0 }),
        watch: Millis(rng.below(500)),
        ..Rollout::rolling(Millis::seconds(3))
    }
}

/// Bounds around what `replicas` may be, sometimes with sleep.
fn scale(rng: &mut Rng) -> Scale {
    let min = u32::try_from(rng.below(2)).unwrap();
    let max = u32::try_from(rng.below(4)).unwrap() + 3;
    let requests = Some(Amount(100_000));
    let target = Targets { requests_per_second: requests, ..Targets::default() };
    let down_after = Millis::seconds(rng.below(4) + 1);
    Scale { min, max, target, down_after, tolerance: 10 }
}

/// Does one deed. A deed whose engine is killed meanwhile just ends.
pub async fn perform(deed: &Deed, shared: &Shared, handle: &Handle) {
    shared.lock().say(format!("deed: {}", name(deed)));
    match deed {
        Deed::Apply(content) => propose(shared, handle, (**content).clone(), Origin::Apply).await,
        Deed::Rollback => {
            let state = laws::state(&mut shared.lock());
            let Some(before) = state.active.and_then(|n| n.checked_sub(1)).filter(|n| *n > 0)
            else {
                return;
            };
            let stored = shared.lock().durable.iter().find_map(|write| match write {
                kiln_engine::store::Write::Generation(g) if g.number == before => Some(g.clone()),
                _ => None,
            });
            let Some(stored) = stored else { return };
            let origin = Origin::Rollback { to: before };
            propose(shared, handle, stored.content.clone(), origin).await;
        }
        Deed::Destroy => propose(shared, handle, Content::default(), Origin::Destroy).await,
        Deed::Kill => disturb(
            shared,
            |_| true,
            |body, now| {
                body.seen.phase = Phase::Ended { cause: Ending::Killed(9) };
                body.broken_at = Some(now);
            },
        ),
        Deed::Tamper => {
            let mut world = shared.lock();
            let sound = world
                .bodies
                .values()
                .filter(|body| body.seen.is_ready() && body.seen.draining_since.is_none());
            let sound: Vec<_> = sound.map(|body| body.seen.id.clone()).collect();
            if !sound.is_empty() {
                let choice = world.chaos.below(sound.len() as u64);
                let victim = &sound[usize::try_from(choice).unwrap()];
                world.say(format!("{victim} is tampered with"));
                let drift = Drift::new(Aspect::CgroupMemory, "67108864", "max");
                world.bodies.get_mut(victim).unwrap().seen.drift = vec![drift];
            }
            drop(world);
            shared.changed.notify_one();
        }
        Deed::Sicken => disturb(
            shared,
            |_| true,
            |body, now| {
                body.seen.health = Verdict::Dead { since: now, reason: "503".to_owned() };
                body.broken_at = Some(now);
            },
        ),
        Deed::Falter(span) => disturb(
            shared,
            |body| body.patience.is_some(),
            |body, now| {
                body.seen.health = Verdict::Unready { since: now, reason: "503".to_owned() };
                body.ready_at = span.map(|span| now.after(Millis(span)));
            },
        ),
        Deed::Scale(count) => drop(handle.scale(id("server.web"), *count, Actor::Keeper).await),
        Deed::Demand(rate) => shared.lock().set_rate(*rate),
        Deed::Cancel => drop(handle.cancel(Actor::Keeper).await),
        Deed::Crash(steps) => shared.lock().crash_in = Some(*steps),
        Deed::Rest(millis) => {
            tokio::time::sleep(std::time::Duration::from_millis(*millis)).await;
        }
    }
}

async fn propose(shared: &Shared, handle: &Handle, content: Content, origin: Origin) {
    let parent = laws::state(&mut shared.lock()).active;
    let proposal = Proposal { content, parent, origin, commit: None, by: Actor::Keeper };
    let answer = handle.commit(proposal).await;
    shared.lock().say(format!("answer: {:?}", answer.map_err(|e| e.to_string())));
}

fn disturb(
    shared: &Shared,
    whom: impl Fn(&crate::world::Body) -> bool,
    how: impl FnOnce(&mut crate::world::Body, kiln_model::quantity::Timestamp),
) {
    let mut world = shared.lock();
    world.settle();
    let now = world.now();
    let ready: Vec<_> = world
        .bodies
        .values()
        .filter(|b| b.seen.is_ready() && b.seen.draining_since.is_none() && whom(b))
        .map(|b| b.seen.id.clone())
        .collect();
    if ready.is_empty() {
        return;
    }
    let choice = world.chaos.below(ready.len() as u64);
    let victim = &ready[usize::try_from(choice).unwrap()];
    world.say(format!("{victim} is disturbed"));
    world.in_flight.retain(|f| f.instance != *victim);
    if let Some(body) = world.bodies.get_mut(victim) {
        how(body, now);
    }
    drop(world);
    shared.changed.notify_one();
}

/// Clients: a request every few milliseconds, by the gateway's present table.
pub async fn traffic(seed: u64, shared: Shared) {
    let mut rng = Rng::new(seed, "traffic");
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(rng.below(100) + 20)).await;
        let mut world = shared.lock();
        world.settle();
        laws::always(&mut world);
        let Some(table) = world.table.clone() else {
            world.served = false;
            continue;
        };
        let Some(endpoint) = table.endpoints.first() else {
            world.served = false;
            continue;
        };
        if world.is_quiet() {
            continue;
        }
        world.arrive();
        if endpoint.backends.is_empty() && endpoint.sleeps {
            if world.waiting.is_none() {
                world.waiting = Some(world.now());
                shared.changed.notify_one();
            }
            continue;
        }
        if endpoint.backends.is_empty() {
            let ready = world.ready(&id("server.web"));
            if world.served && !world.disturbed && ready > 0 {
                world.violation("a request finds nobody");
            }
            continue;
        }
        world.served = true;
        let choice = usize::try_from(rng.below(endpoint.backends.len() as u64)).unwrap();
        let instance = endpoint.backends[choice].instance.clone();
        let alive = world.bodies.get(&instance).is_some_and(|b| b.seen.is_running());
        if !alive && !world.disturbed {
            world.violation(format!("a request goes to {instance}, which is gone"));
        }
        world.answer(&instance);
        let until = world.now().after(Millis(rng.below(400)));
        world.in_flight.push(InFlight { instance, until });
    }
}

fn name(deed: &Deed) -> String {
    match deed {
        Deed::Apply(content) => {
            let web = content.components.get(&id("server.web"));
            format!("apply {:?}", web.map(|c| c.digest.short(8)))
        }
        other => format!("{other:?}"),
    }
}
