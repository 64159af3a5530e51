//! For each server: which instances stay, which are made, which are retired.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::address;
use crate::digest::Digest;
use crate::generation::{Component, Generation};
use crate::name::{ComponentId, InstanceId};
use crate::observed::{Observed, ObservedInstance, Phase, Verdict};
use crate::quantity::{Millis, Timestamp};
use crate::route::DatabaseRoute;
use crate::spec::server::Server;

use super::networks::Networks;
use super::report::{Milestone, Waiting};
use super::stage::{Situation, Stage};
use super::table::Serving;
use super::{DRAIN_BOUND, Evidence, InstanceCreation, Reason, database, fresh_id};

/// Replacements of one component within a minute, beyond which they are made one a second.
const STORM: u32 = 120;

/// What is decided about one server's instances.
#[derive(Debug)]
pub(super) struct Fleet {
    /// How many instances are wanted.
    pub(super) wanted: u32,
    /// Instances of the wanted digest, whole and to be kept, that are ready.
    pub(super) ready: u32,
    /// The same that are not ready yet.
    pub(super) starting: u32,
    /// Instances that are wanted and can't be made at present, and why.
    pub(super) held: Option<(Reason, Option<Timestamp>)>,
    /// None are wanted, and what asks for it is held until one is.
    pub(super) asleep: bool,
    /// Nobody serves for a moment, and what asks for it is held.
    pub(super) holds: bool,
    /// The share of instances of the wanted digest, of a thousand, where it is a fixed one.
    pub(super) split: Option<u16>,
    /// Why it is not through although all that was asked for is ready.
    pub(super) pending: Option<Reason>,
    /// When it goes on although nothing is seen to change.
    pub(super) wake_at: Option<Timestamp>,
    /// How many instances as wanted may exist by now, and how many besides.
    pub(super) bounds: (u32, u32),
}

impl Fleet {
    /// Whether all instances are ready, and have what is theirs of the traffic.
    pub(super) fn is_through(&self) -> bool {
        self.ready >= self.wanted && self.pending.is_none()
    }
}

/// What is decided about all instances.
#[derive(Debug, Default)]
pub(super) struct Fleets {
    by_server: BTreeMap<ComponentId, Fleet>,
    creations: Vec<(Arc<InstanceCreation>, Reason)>,
    /// Instances that are out of rotation from now on, and why.
    retired: BTreeMap<InstanceId, Reason>,
    drain: BTreeMap<InstanceId, Reason>,
    destroy: BTreeMap<InstanceId, (Evidence, Reason)>,
    /// Instances that are ready and get no traffic.
    hidden: BTreeSet<InstanceId>,
    /// Who answers for each database.
    pub(super) routes: Vec<DatabaseRoute>,
    /// What has been reached and is not written down.
    pub(super) milestones: Vec<Milestone>,
    /// When the next drain reaches its bound.
    pub(super) drain_until: Option<Timestamp>,
}

/// The instances of one server, sorted by what they are good for.
struct Sorted<'a> {
    current: Vec<&'a ObservedInstance>,
    old: Vec<&'a ObservedInstance>,
    /// Those of the wanted digest that have been unready for too long: another is to take the
    /// place of each, and until that is ready they may come back.
    ailing: Vec<&'a ObservedInstance>,
    broken: Vec<(&'a ObservedInstance, Reason)>,
}

impl Fleets {
    pub(super) fn decide(desired: &Generation, observed: &Observed, networks: &Networks) -> Self {
        let mut fleets = Fleets::default();
        let mut taken = Networks::taken(observed);
        let by_component = group(observed);
        let mut serves_new: BTreeSet<&ComponentId> = BTreeSet::new();
        for (id, component, server) in desired.content.servers() {
            let instances = by_component.get(id).map(Vec::as_slice).unwrap_or_default();
            let sorted = sort(instances, component, server, observed, networks);
            let wanted = observed.wanted.get(id).copied().unwrap_or(server.policy.replicas);
            let situation = Situation {
                desired,
                observed,
                id,
                digest: component.digest,
                rollout: &server.policy.rollout,
                wanted,
                current: &sorted.current,
                old: &sorted.old,
            };
            let mut stage = situation.decide();
            stage.hidden.extend(distrusted(&sorted, &stage, wanted));
            let (hidden, split) = (&stage.hidden, stage.split);
            let new_serve = split.is_none()
                && sorted.current.iter().any(|i| i.is_ready() && !hidden.contains(&i.id));
            // One of which none is wanted sleeps, and is woken by who talks to it.
            if wanted == 0 || new_serve {
                serves_new.insert(id);
            }
            let fleet = fleets.retire_within(&sorted, wanted, stage, (server, observed.at));
            fleets.by_server.insert(id.clone(), fleet);
        }
        let databases = desired.content.databases().map(|(id, _, _)| id);
        serves_new.extend(databases.filter(|id| database::serves(desired, observed, id)));
        for (id, component, server) in desired.content.servers() {
            let instances = by_component.get(id).map(Vec::as_slice).unwrap_or_default();
            let sorted = sort(instances, component, server, observed, networks);
            let waits = observed.rollout.is_some()
                && component.spec.talks_to().iter().any(|to| !serves_new.contains(*to));
            let order = Order { id, component, server, sorted: &sorted, waits };
            fleets.create(desired, observed, networks, &order, &mut taken);
        }
        for (id, component, database) in desired.content.databases() {
            let instances = by_component.get(id).map(Vec::as_slice).unwrap_or_default();
            let maker = Maker { desired, observed, networks };
            let decided =
                database::decide(&maker, (id, component, database), instances, &mut taken);
            fleets.creations.extend(decided.creations);
            fleets.retired.extend(decided.retired);
            fleets.routes.push(decided.route);
            fleets.by_server.insert(id.clone(), decided.fleet);
        }
        for instance in &observed.instances {
            fleets.finish(desired, instance, observed.at);
        }
        fleets
    }

    /// Retires what is broken, what is replaced and what is too many.
    fn retire_within(
        &mut self,
        sorted: &Sorted<'_>,
        wanted: u32,
        stage: Stage,
        (server, now): (&Server, Timestamp),
    ) -> Fleet {
        let ready = count(sorted.current.iter().filter(|i| i.is_ready()));
        for (instance, reason) in &sorted.broken {
            self.retire(instance, reason.clone());
        }
        // An old one that never was ready is of no use; of the others the newest stay longest.
        let (mut old, unproved): (Vec<&ObservedInstance>, Vec<&ObservedInstance>) =
            sorted.old.iter().partition(|i| i.is_ready() || may_come_back(i, server, now));
        old.sort_by_key(|i| {
            Reverse((i.is_ready(), i.drift.is_empty(), i.created_at, i.id.clone()))
        });
        for instance in old.iter().skip(stage.keep_old as usize).chain(&unproved) {
            self.retire(instance, drifted(instance).unwrap_or(Reason::Replaced));
        }
        // What is unready for long is of no use where older ones serve in its place: beside both
        // there might be no room for a new one.
        let serving = old.iter().filter(|i| i.is_ready() && !stage.hidden.contains(&i.id));
        let answering = ready + count(serving).min(stage.keep_old);
        for instance in sorted.ailing.iter().skip(wanted.saturating_sub(answering) as usize) {
            self.retire(instance, unready(instance));
        }
        // Of too many those go that do not serve yet, then the newest: what has served longest
        // is proved best, and warm.
        let mut current = sorted.current.clone();
        current.sort_by_key(|i| (!i.is_ready(), i.created_at, i.id.clone()));
        for instance in current.iter().skip(wanted as usize) {
            self.retire(instance, Reason::TooMany);
        }
        self.hidden.extend(stage.hidden);
        self.milestones.extend(stage.milestone);
        Fleet {
            wanted,
            ready: ready.min(wanted),
            starting: count(current.iter().take(wanted as usize).filter(|i| !i.is_ready())),
            held: None,
            asleep: wanted == 0 && server.policy.sleeps(),
            holds: stage.holds,
            split: stage.split,
            pending: stage.pending,
            wake_at: stage.wake_at,
            bounds: (stage.target, stage.surplus),
        }
    }

    /// Makes what is missing, as far as the bounds allow.
    fn create(
        &mut self,
        desired: &Generation,
        observed: &Observed,
        networks: &Networks,
        order: &Order<'_>,
        taken: &mut BTreeMap<InstanceId, BTreeSet<Ipv4Addr>>,
    ) {
        let Some(fleet) = self.by_server.get_mut(order.id) else { return };
        let missing = order.missing(fleet.wanted, fleet.bounds);
        if missing == 0 {
            return;
        }
        if let Some(held) = order.held(observed, fleet.wanted) {
            fleet.held = Some(held);
            return;
        }
        let missing = missing.min(order.allowed(observed, fleet.wanted));
        let because = order.reason();
        let maker = Maker { desired, observed, networks };
        for ordinal in 0..missing as usize {
            match maker.make((order.id, order.component), order.server, ordinal, taken) {
                Ok(creation) => self.creations.push((Arc::new(creation), because.clone())),
                Err(why) => {
                    fleet.held = Some((why, None));
                    return;
                }
            }
        }
    }

    fn retire(&mut self, instance: &ObservedInstance, reason: Reason) {
        self.retired.insert(instance.id.clone(), reason);
    }

    /// Decides whether a retired instance begins to drain or is ended.
    fn finish(&mut self, desired: &Generation, instance: &ObservedInstance, now: Timestamp) {
        let Some(reason) = self.retired.get(&instance.id).cloned() else { return };
        let evidence = evidence(desired, instance);
        if !instance.is_running() {
            self.destroy.insert(instance.id.clone(), (evidence, reason));
            return;
        }
        let Some(since) = instance.draining_since else {
            self.drain.insert(instance.id.clone(), reason);
            return;
        };
        let bound = since.after(DRAIN_BOUND);
        // One that is kept from running finishes nothing.
        if instance.in_flight == 0 || instance.is_stopped() || now >= bound {
            self.destroy.insert(instance.id.clone(), (evidence, reason));
        } else {
            self.drain_until = Some(self.drain_until.map_or(bound, |until| until.min(bound)));
        }
    }

    /// Retires the instances of components that the generation does not name, once nothing
    /// needs them: no endpoint goes to them, and no instance that may connect to them is left.
    pub(super) fn retire_removed(
        &mut self,
        desired: &Generation,
        observed: &Observed,
        serving: &Serving,
        proved: bool,
    ) {
        let clients: BTreeSet<&ComponentId> = observed
            .instances
            .iter()
            .filter(|i| i.is_running())
            .flat_map(|i| i.connects.iter().map(|c| &c.to))
            .collect();
        for instance in &observed.instances {
            let id = &instance.component;
            if self.by_server.contains_key(id) || self.retired.contains_key(&instance.id) {
                continue;
            }
            let needed = serving.is_used(id) || clients.contains(id) || !proved;
            if instance.draining_since.is_some() || !instance.is_running() || !needed {
                self.retire(instance, Reason::NotWanted);
                self.finish(desired, instance, observed.at);
            }
        }
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = (&ComponentId, &Fleet)> {
        self.by_server.iter()
    }

    pub(super) fn of(&self, server: &ComponentId) -> Option<&Fleet> {
        self.by_server.get(server)
    }

    pub(super) fn creations(&self) -> impl Iterator<Item = &(Arc<InstanceCreation>, Reason)> {
        self.creations.iter()
    }

    pub(super) fn to_drain(&self) -> impl Iterator<Item = (&InstanceId, &Reason)> {
        self.drain.iter()
    }

    pub(super) fn to_destroy(&self) -> impl Iterator<Item = (&InstanceId, &(Evidence, Reason))> {
        self.destroy.iter()
    }

    /// Whether an instance is, or is about to be, on its way out.
    pub(super) fn is_retired(&self, id: &InstanceId) -> bool {
        self.retired.contains_key(id)
    }

    /// Whether instances are on their way out.
    pub(super) fn any_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Whether every server has all the instances that it wants, ready and serving.
    pub(super) fn all_through(&self) -> bool {
        self.by_server.values().all(Fleet::is_through)
    }

    /// Whether an instance gets traffic once it is ready.
    pub(super) fn is_shown(&self, id: &InstanceId) -> bool {
        !self.is_retired(id) && !self.hidden.contains(id)
    }

    /// A server that is not through, and why.
    pub(super) fn waiting(&self, server: &ComponentId, why: Option<Reason>) -> Option<Waiting> {
        let fleet = self.by_server.get(server)?;
        Some(Waiting {
            component: server.clone(),
            wanted: fleet.wanted,
            ready: fleet.ready,
            starting: fleet.starting,
            why,
        })
    }
}

/// What new instances are made from.
pub(super) struct Maker<'a> {
    pub(super) desired: &'a Generation,
    pub(super) observed: &'a Observed,
    pub(super) networks: &'a Networks,
}

impl Maker<'_> {
    /// A new instance of a component, or why there can be none.
    pub(super) fn make(
        &self,
        (id, component): (&ComponentId, &Component),
        server: &Server,
        ordinal: usize,
        taken: &mut BTreeMap<InstanceId, BTreeSet<Ipv4Addr>>,
    ) -> Result<InstanceCreation, Reason> {
        let network = self.networks.of(&server.identity.network.id).ok_or(Reason::NoAddress)?;
        let image = self.desired.content.images.get(&server.identity.image.id);
        let image = *image.ok_or(Reason::ImageNotBuilt)?;
        let taken = taken.entry(network.id.clone()).or_default();
        let instance = fresh_id(self.desired, self.observed, id, ordinal);
        let seed = Digest::of(instance.as_str().as_bytes()).as_bytes()[0];
        let seed = u32::from(seed) << 8 | u32::try_from(ordinal).unwrap_or(0);
        let free = address::free_for_instances(&network.identity, taken, seed).next();
        let address = free.ok_or(Reason::NoAddress)?;
        taken.insert(address);
        Ok(InstanceCreation {
            id: instance,
            stack: self.desired.stack.clone(),
            component: id.clone(),
            digest: component.digest,
            generation: self.desired.number,
            network: network.id.clone(),
            network_identity: network.identity.clone(),
            address,
            image,
            demands: self.desired.content.demands.clone(),
            server: server.clone(),
            data: None,
        })
    }
}

/// One server whose missing instances are to be made.
struct Order<'a> {
    id: &'a ComponentId,
    component: &'a Component,
    server: &'a Server,
    sorted: &'a Sorted<'a>,
    /// What it talks to is not ready yet.
    waits: bool,
}

impl Order<'_> {
    /// How many instances may be made now, of which so many may exist by now and so many besides
    /// those that are wanted.
    fn missing(&self, wanted: u32, (target, surplus): (u32, u32)) -> u32 {
        let current = count(self.sorted.current.iter());
        let old = count(self.sorted.old.iter().chain(&self.sorted.ailing));
        let missing = target.saturating_sub(current);
        if old == 0 {
            return missing;
        }
        missing.min(wanted.saturating_add(surplus).saturating_sub(current + old))
    }

    /// Why nothing may be made now, and until when.
    fn held(&self, observed: &Observed, wanted: u32) -> Option<(Reason, Option<Timestamp>)> {
        if self.waits {
            return Some((Reason::WaitsForOthers, None));
        }
        let pace = observed.pace.get(self.id)?;
        if pace.not_before() > observed.at {
            return Some((Reason::BackingOff, Some(pace.not_before())));
        }
        let next = pace.last_made.after(Millis::seconds(1));
        (self.allowed(observed, wanted) == 0).then_some((Reason::Storm, Some(next)))
    }

    /// How many may be made now, however many are missing: no replacement is refused while fewer
    /// than wanted are ready or on their way, and of others so many within a minute, then one a second.
    fn allowed(&self, observed: &Observed, wanted: u32) -> u32 {
        let Some(pace) = observed.pace.get(self.id) else { return u32::MAX };
        // What has drifted and is healthy all the same can wait for another.
        let odd = self.sorted.old.iter().filter(|i| i.is_ready());
        let odd = count(odd.filter(|i| i.digest == self.component.digest));
        let there = count(self.sorted.current.iter()).saturating_add(odd);
        let lacking = wanted.saturating_sub(there);
        let next = pace.last_made.after(Millis::seconds(1));
        let paced = match STORM.saturating_sub(pace.in_last_minute) {
            0 => u32::from(next <= observed.at),
            left => left,
        };
        lacking.max(paced)
    }

    /// Why one more is made: for one that broke, in place of an older digest, or at all.
    fn reason(&self) -> Reason {
        let leaving = |reason: &Reason| *reason == Reason::Draining;
        if let Some((instance, reason)) = self.sorted.broken.iter().find(|(_, r)| !leaving(r)) {
            let why = Box::new(reason.clone());
            return Reason::InPlaceOf { instance: instance.id.clone(), why };
        }
        if let Some(ailing) = self.sorted.ailing.first() {
            let (instance, why) = (ailing.id.clone(), Box::new(unready(ailing)));
            return Reason::InPlaceOf { instance, why };
        }
        let odd = self.sorted.old.iter().find_map(|i| Some((&i.id, drifted(i)?)));
        if let Some((instance, why)) = odd {
            return Reason::InPlaceOf { instance: instance.clone(), why: Box::new(why) };
        }
        let draining = self.sorted.broken.iter().map(|(instance, _)| instance);
        let mut older = self.sorted.old.iter().chain(draining);
        match older.find(|i| i.digest != self.component.digest) {
            Some(old) => Reason::Replaces { from: old.digest },
            None => Reason::Missing,
        }
    }
}

fn group(observed: &Observed) -> BTreeMap<&ComponentId, Vec<&ObservedInstance>> {
    let mut groups: BTreeMap<&ComponentId, Vec<&ObservedInstance>> = BTreeMap::new();
    for instance in &observed.instances {
        groups.entry(&instance.component).or_default().push(instance);
    }
    groups
}

fn sort<'a>(
    instances: &[&'a ObservedInstance],
    component: &Component,
    server: &Server,
    observed: &Observed,
    networks: &Networks,
) -> Sorted<'a> {
    let (current, old, ailing, broken) = Default::default();
    let mut sorted = Sorted { current, old, ailing, broken };
    let network = networks.of(&server.identity.network.id).map(|n| &n.id);
    for instance in instances {
        let fresh = instance.digest == component.digest
            && Some(&instance.network) == network
            && instance.drift.is_empty();
        if let Some(reason) = why_broken(instance, server, observed.at) {
            sorted.broken.push((instance, reason));
        } else if fresh && overdue(instance, server, observed.at) {
            sorted.ailing.push(instance);
        } else if fresh {
            sorted.current.push(instance);
        } else {
            sorted.old.push(instance);
        }
    }
    // Those that have been unready for longest go first.
    sorted.ailing.sort_by_key(|i| (Reverse(unready_since(i)), i.id.clone()));
    sorted
}

fn unready_since(instance: &ObservedInstance) -> Option<Timestamp> {
    match &instance.health {
        Verdict::Unready { since, .. } => Some(*since),
        _ => None,
    }
}

/// Until when an unready instance may come back before another is made in its place.
pub(super) fn patience(instance: &ObservedInstance, server: &Server) -> Option<Timestamp> {
    let bound = server.policy.health.replace_after.unwrap_or_default();
    Some(unready_since(instance)?.after(bound))
}

fn may_come_back(instance: &ObservedInstance, server: &Server, now: Timestamp) -> bool {
    patience(instance, server).is_some_and(|until| now < until)
}

fn overdue(instance: &ObservedInstance, server: &Server, now: Timestamp) -> bool {
    patience(instance, server).is_some_and(|until| now >= until)
}

fn unready(instance: &ObservedInstance) -> Reason {
    let last = instance.health.complaint().unwrap_or_default().to_owned();
    Reason::Unready { last }
}

/// Why an instance can't be kept whatever the generation says.
pub(super) fn why_broken(
    instance: &ObservedInstance,
    server: &Server,
    now: Timestamp,
) -> Option<Reason> {
    // Whatever becomes of one that is being ended, it has been replaced.
    if instance.draining_since.is_some() {
        return Some(Reason::Draining);
    }
    if let Phase::Ended { cause } = &instance.phase {
        return Some(Reason::Ended { cause: cause.clone() });
    }
    // One that serves all the same is replaced as one of an older digest is: not before another
    // is ready.
    if let Some(reason) = drifted(instance).filter(|_| !instance.is_ready()) {
        return Some(reason);
    }
    match &instance.health {
        Verdict::Dead { .. } => Some(unready(instance)),
        // Nothing is known yet of one that has not been asked, such as one found by a new daemon.
        Verdict::Ready { .. } | Verdict::Unready { .. } | Verdict::Starting { last: None } => None,
        Verdict::Starting { last } => {
            let late = now.since(instance.created_at) >= server.policy.rollout.deadline;
            late.then(|| Reason::NeverReady { last: last.clone() })
        }
    }
}

/// The instances that get no traffic because they are not what their digest says: whatever they
/// answer is not to be trusted. As long as less than half of those wanted would be left to answer,
/// as where something has come over all of them, they serve until others are ready.
fn distrusted(sorted: &Sorted<'_>, stage: &Stage, wanted: u32) -> BTreeSet<InstanceId> {
    let serving = sorted.current.iter().chain(&sorted.old);
    let serving = serving.filter(|i| i.is_ready() && !stage.hidden.contains(&i.id));
    let (sound, odd): (Vec<&ObservedInstance>, Vec<&ObservedInstance>) =
        serving.copied().partition(|i| i.drift.is_empty());
    let enough = !sound.is_empty() && count(sound.iter()).saturating_mul(2) >= wanted;
    odd.iter().filter(|_| enough).map(|i| i.id.clone()).collect()
}

/// Whether evidence is kept of an instance when it ends: it has drifted, and its server's policy
/// says so.
fn evidence(desired: &Generation, instance: &ObservedInstance) -> Evidence {
    let component = desired.content.components.get(&instance.component);
    let server = component.and_then(|component| component.spec.as_server());
    if server.is_some_and(|server| server.policy.quarantine) && !instance.drift.is_empty() {
        Evidence::Kept
    } else {
        Evidence::None
    }
}

fn drifted(instance: &ObservedInstance) -> Option<Reason> {
    instance.drift.first().map(|drift| Reason::Drifted { drift: drift.clone() })
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
