//! For each database: which instances stay, which are made, and who takes the writes.
//!
//! The data decides. The *head* is the volume that writes went to last; whoever holds it is the
//! primary, or has to give way to one that has all of it. A change is answered by a standby as the
//! generation wants it, which receives the data of the primary. When that has all but what is being
//! written, writes go over in steps that are each seen to be done before the next is decided:
//! clients are *held* between their transactions; when nothing is under way any more, the table
//! names nobody (the *fence*): from then on the old primary can't acknowledge anything; when the
//! standby has what the old primary had at that time, the table names it, and with that it is
//! promoted. Before the fence, and after it until the standby is named, the way back is open: the
//! old primary has everything.
//!
//! Where the generation names another [branch] of the data, an instance with that takes
//! the place of a standby.

mod branch;

mod major;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::certificate::SecretKey;
use crate::data::{Branch, BranchOrigin, DataOrigin, ObservedGate, ObservedVolume, Role, Said};
use crate::generation::{Component, Generation};
use crate::name::{ComponentId, InstanceId};
use crate::observed::{Observed, ObservedInstance};
use crate::quantity::{Millis, Timestamp};
use crate::route::DatabaseRoute;
use crate::spec::Database;

use super::fleet::{Fleet, Maker, why_broken};
use super::{DataCreation, InstanceCreation, Reason};

pub(super) use major::is_past_return;

/// How much of the log a standby may lack when clients begin to be held for it, in bytes.
const NEAR: u64 = 16 << 20;
/// The pause between a switch that was put off and the next attempt.
const PAUSE: Millis = Millis::seconds(2);

/// What is decided about one database.
pub(super) struct Decided {
    pub(super) creations: Vec<(Arc<InstanceCreation>, Reason)>,
    pub(super) retired: BTreeMap<InstanceId, Reason>,
    pub(super) route: DatabaseRoute,
    pub(super) fleet: Fleet,
}

/// An instance that is missing.
#[derive(Clone)]
struct Need {
    origin: DataOrigin,
    /// The branch of its data.
    branch: u64,
    because: Reason,
}

/// Who takes writes, and what is still to come.
struct Seat {
    primary: Option<InstanceId>,
    holds: bool,
    pending: Option<Reason>,
    wake_at: Option<Timestamp>,
}

impl Seat {
    /// This one takes writes.
    fn of(instance: &ObservedInstance, pending: Option<Reason>) -> Self {
        Self { primary: Some(instance.id.clone()), holds: false, pending, wake_at: None }
    }

    /// Clients of this one are held between their transactions, at the longest until then.
    fn held(instance: &ObservedInstance, until: Timestamp) -> Self {
        let pending = Some(Reason::SwitchingOver);
        Self { primary: Some(instance.id.clone()), holds: true, pending, wake_at: Some(until) }
    }

    /// Nobody takes any.
    fn empty(why: Reason) -> Self {
        Self { primary: None, holds: false, pending: Some(why), wake_at: None }
    }
}

/// Whether the database has one as wanted that takes writes, so that what connects to it can begin.
pub(super) fn serves(desired: &Generation, observed: &Observed, id: &ComponentId) -> bool {
    let digest = desired.content.components.get(id).map(|component| component.digest);
    let routes = observed.table.iter().flat_map(|table| &table.databases);
    let primary = routes.filter(|route| route.component == *id).find_map(|r| r.primary.as_ref());
    let mut instances = observed.instances.iter();
    instances.any(|i| Some(&i.id) == primary && Some(i.digest) == digest && i.is_ready())
}

/// The databases whose data is to be removed: the generation itself asks for it, and nothing of them is
/// declared or there any more. What was written since they were declared anew is in a branch of its own,
/// and stays.
pub(super) fn discarded<'a>(
    desired: &'a Generation,
    observed: &'a Observed,
) -> impl Iterator<Item = &'a ComponentId> {
    let asked = desired.content.data.iter().filter(|(id, branch)| {
        branch.from == BranchOrigin::Discarded
            && branch.number == desired.number
            && !desired.content.components.contains_key(id)
    });
    let there = asked.filter(|(id, branch)| {
        let before = |v: &ObservedVolume| v.component == **id && v.branch < branch.number;
        observed.volumes.iter().any(before)
            && !observed.instances.iter().any(|instance| instance.component == **id)
    });
    there.map(|(id, _)| id)
}

pub(super) fn decide(
    maker: &Maker<'_>,
    (id, component, database): (&ComponentId, &Component, &Database),
    instances: &[&ObservedInstance],
    taken: &mut BTreeMap<InstanceId, BTreeSet<Ipv4Addr>>,
) -> Decided {
    let mut scene = Scene::new(maker, (id, component, database), instances);
    let seat = scene.seat();
    scene.retire(&seat);
    scene.make(taken);
    scene.conclude(seat)
}

/// One database, sorted by what is of use.
struct Scene<'a> {
    maker: &'a Maker<'a>,
    id: &'a ComponentId,
    component: &'a Component,
    database: &'a Database,
    /// All instances that exist, however they are.
    all: &'a [&'a ObservedInstance],
    head: Option<&'a ObservedVolume>,
    /// The one that holds the head, and is well.
    holder: Option<&'a ObservedInstance>,
    /// Those that are well and hold another volume, and are as the generation wants them.
    fresh: Vec<&'a ObservedInstance>,
    /// The same that are not.
    stale: Vec<&'a ObservedInstance>,
    /// Those that are well and hold data of another branch than the head's.
    aside: Vec<&'a ObservedInstance>,
    /// The branch that the data is to go on in.
    branch: Branch,
    route: Option<&'a DatabaseRoute>,
    gate: Option<&'a ObservedGate>,
    creations: Vec<(Arc<InstanceCreation>, Reason)>,
    retired: BTreeMap<InstanceId, Reason>,
    held: Option<(Reason, Option<Timestamp>)>,
}

impl<'a> Scene<'a> {
    fn new(
        maker: &'a Maker<'a>,
        (id, component, database): (&'a ComponentId, &'a Component, &'a Database),
        all: &'a [&'a ObservedInstance],
    ) -> Self {
        let observed = maker.observed;
        let tables = observed.table.iter().flat_map(|table| &table.databases);
        let mut scene = Self {
            maker,
            id,
            component,
            database,
            all,
            head: observed.volumes.iter().find(|v| v.component == *id && v.head),
            holder: None,
            fresh: Vec::new(),
            stale: Vec::new(),
            aside: Vec::new(),
            branch: maker.desired.content.branch(id),
            route: tables.into_iter().find(|route| route.component == *id),
            gate: observed.gates.iter().find(|gate| gate.component == *id),
            creations: Vec::new(),
            retired: BTreeMap::new(),
            held: None,
        };
        let server = database.server();
        for instance in all {
            if let Some(reason) = why_broken(instance, &server, observed.at) {
                scene.retired.insert(instance.id.clone(), reason);
            } else if scene.holds_head(instance) {
                scene.holder = Some(instance);
            } else if scene.is_aside(instance) {
                scene.aside.push(instance);
            } else if scene.is_left_behind(instance)
                || (scene.head.is_some() && is_primary(instance))
            {
                // Nothing can come of it any more: it took writes until another was promoted, or
                // was to take over from what is not the head any more.
                scene.retired.insert(instance.id.clone(), Reason::Replaced);
            } else if scene.is_fresh(instance) {
                scene.fresh.push(instance);
            } else {
                scene.stale.push(instance);
            }
        }
        scene
    }

    /// Whether an instance is what the generation says.
    fn is_fresh(&self, instance: &ObservedInstance) -> bool {
        let network = self.maker.networks.of(&self.database.identity.network.id).map(|n| &n.id);
        instance.digest == self.component.digest
            && Some(&instance.network) == network
            && instance.drift.is_empty()
    }

    fn holds_head(&self, instance: &ObservedInstance) -> bool {
        let volume = instance.data.as_ref().map(|data| &data.volume);
        self.head.is_some_and(|head| Some(&head.id) == volume)
    }

    /// Who is to take writes now.
    fn seat(&self) -> Seat {
        if self.head.is_none() {
            // The first one that answers has nothing that another could lack.
            let first = self.fresh.iter().find(|i| i.is_ready());
            return first.map_or(Seat::empty(Reason::Missing), |first| Seat::of(first, None));
        }
        if self.turns() {
            return self.turn();
        }
        let Some(holder) = self.holder else { return self.after_loss() };
        if !holder.is_ready() {
            return self.unheard(holder);
        }
        if self.is_fresh(holder) {
            return Seat::of(holder, None);
        }
        match self.successor(holder) {
            Some((standby, said)) => self.switch(holder, standby, Some(said)),
            None => Seat::of(holder, Some(self.catching_up(holder))),
        }
    }

    /// The holder has not answered yet. Where the table names it already, as where a new daemon has
    /// just begun to ask it, what is in force stays in force: to fence it would end what is under way.
    fn unheard(&self, holder: &ObservedInstance) -> Seat {
        let named = self.route.filter(|route| route.primary.as_ref() == Some(&holder.id));
        let Some(route) = named else { return Seat::empty(Reason::Recovering) };
        let until = self.held_until();
        if route.holds && self.maker.observed.at < until {
            return Seat::held(holder, until);
        }
        Seat::of(holder, Some(Reason::Recovering))
    }

    /// How long clients are held at the longest: from the beginning of that, or from now.
    fn held_until(&self) -> Timestamp {
        let since = self.gate.and_then(|gate| gate.held_since);
        since.unwrap_or(self.maker.observed.at).after(self.database.policy.hold)
    }

    /// The standby that takes over from `holder`: as wanted, and receiving its data.
    fn successor(&self, holder: &ObservedInstance) -> Option<(&'a ObservedInstance, &'a Said)> {
        let ready = self.fresh.iter().filter(|i| i.is_ready() && self.is_accompanied(i));
        let said = ready.filter_map(|i| Some((*i, said(i)?)));
        let follows = said.filter(|(_, said)| {
            said.role == Role::Standby && said.follows.as_ref() == Some(&holder.id)
        });
        follows.max_by_key(|(instance, said)| (said.position, &instance.id))
    }

    fn catching_up(&self, holder: &ObservedInstance) -> Reason {
        let ahead = said(holder).map(|said| said.position);
        let best = self.fresh.iter().filter_map(|i| said(i)).map(|said| said.position).max();
        let behind = ahead.zip(best).map(|(ahead, best)| ahead.saturating_sub(best));
        Reason::CatchingUp { behind }
    }

    /// One step of the way on which writes go over from `holder` to `next`, a standby that has so
    /// much of its data, or one with data of another branch.
    fn switch(
        &self,
        holder: &ObservedInstance,
        next: &ObservedInstance,
        has: Option<&Said>,
    ) -> Seat {
        let now = self.maker.observed.at;
        let back = |why| Seat::of(holder, Some(why));
        let (Some(gate), Some(route)) = (self.gate, self.route) else {
            return back(Reason::SwitchingOver);
        };
        let until = self.held_until();
        let late = now >= until;
        match &route.primary {
            // Held, and the table names nobody: the old one can't acknowledge anything any more.
            None => {
                let fenced = gate.settled_since.filter(|_| gate.primary.is_none());
                let last = said(holder).filter(|said| fenced.is_some_and(|at| said.at > at));
                let whole = match has {
                    Some(has) => last.is_some_and(|last| has.position >= last.position),
                    None => fenced.is_some(),
                };
                if late {
                    // Also where the other cannot be made to take writes: clients wait no longer.
                    back(Reason::TransactionsGoOn)
                } else if whole {
                    Seat::of(next, None)
                } else {
                    Seat { wake_at: Some(until), ..Seat::empty(Reason::SwitchingOver) }
                }
            }
            Some(primary) if *primary == holder.id && route.holds => {
                if gate.settled_since.is_some() {
                    Seat { wake_at: Some(until), ..Seat::empty(Reason::SwitchingOver) }
                } else if late {
                    back(Reason::TransactionsGoOn)
                } else {
                    Seat::held(holder, until)
                }
            }
            Some(_) => {
                let again = gate.released_at.map(|at| at.after(PAUSE));
                if let Some(again) = again.filter(|again| *again > now) {
                    return Seat { wake_at: Some(again), ..back(Reason::TransactionsGoOn) };
                }
                let ahead = said(holder).map(|said| said.position);
                let lacks = match has {
                    Some(has) => ahead.map(|ahead| ahead.saturating_sub(has.position)),
                    None => Some(0),
                };
                match lacks {
                    Some(lacks) if lacks <= NEAR => {
                        Seat::held(holder, now.after(self.database.policy.hold))
                    }
                    behind => back(Reason::CatchingUp { behind }),
                }
            }
        }
    }

    /// The one that took writes is gone. A standby that is known to have all that was acknowledged
    /// takes its place, once nothing goes to the old one any more; else its volume is recovered.
    fn after_loss(&self) -> Seat {
        if let Some(why) = self.stranded() {
            return Seat::empty(why);
        }
        let fenced = self.route.is_none_or(|route| route.primary.is_none());
        let heir = self.heir().filter(|_| fenced);
        heir.map_or(Seat::empty(Reason::Recovering), |heir| Seat::of(heir, None))
    }

    /// A standby that has all that was ever acknowledged: of those that are said to have it
    /// together, the one that goes furthest.
    fn heir(&self) -> Option<&'a ObservedInstance> {
        // With one that takes the data over, a write may have counted by being there alone.
        let mut others = self.all.iter().filter(|i| !self.holds_head(i));
        if !self.database.identity.synchronous || others.any(|i| major::takes_over(i)) {
            return None;
        }
        let alive = || self.fresh.iter().chain(&self.stale).filter(|i| i.is_ready());
        let sound = alive().filter_map(|i| Some((*i, said(i)?)));
        let sound = sound.filter(|(_, said)| said.synchronous);
        let best = sound.max_by_key(|(i, said)| (said.position, self.is_fresh(i)));
        best.map(|(instance, _)| instance)
    }

    /// How many standbys as wanted there are to be by now.
    fn standbys(&self) -> u32 {
        if self.turns() {
            // Those that are there are kept, in case that it comes to nothing.
            return count(self.fresh.iter());
        }
        let replicas = self.database.policy.replicas;
        match self.holder {
            Some(holder) if self.is_fresh(holder) => replicas,
            // One of them takes its place.
            Some(_) => replicas.saturating_add(1),
            None => 0,
        }
    }

    /// Retires what is of no use once `seat` is in force.
    fn retire(&mut self, seat: &Seat) {
        let primary = seat.primary.as_ref();
        let settled = self.holder.filter(|holder| self.is_fresh(holder));
        let served = settled.is_some_and(|holder| {
            self.route.is_some_and(|route| route.primary.as_ref() == Some(&holder.id))
        });
        let ready = count(self.fresh.iter().filter(|i| i.is_ready()));
        let mut retired = self.astray();
        if self.head.is_none() {
            let useless = self.stale.iter().map(|i| (*i, Reason::NotWanted));
            retired.extend(useless);
        } else if served && ready >= self.database.policy.replicas {
            retired.extend(self.stale.iter().map(|i| (*i, Reason::Replaced)));
            if !self.turns() {
                retired.extend(self.aside.iter().map(|i| (*i, Reason::Replaced)));
            }
        }
        retired.extend(self.useless_aside());
        if self.holder.is_some() {
            let mut fresh = self.fresh.clone();
            fresh.sort_by_key(|i| (!i.is_ready(), i.created_at, i.id.clone()));
            let surplus = fresh.iter().skip(self.standbys() as usize);
            retired.extend(surplus.map(|i| (*i, Reason::TooMany)));
        }
        for (instance, reason) in retired {
            if Some(&instance.id) != primary {
                self.retired.insert(instance.id.clone(), reason);
            }
        }
    }

    /// Makes what is missing.
    fn make(&mut self, taken: &mut BTreeMap<InstanceId, BTreeSet<Ipv4Addr>>) {
        let needs: Vec<Need> = self.opening().into_iter().chain(self.missing()).collect();
        if needs.is_empty() {
            return;
        }
        let observed = self.maker.observed;
        let pause = observed.pace.get(self.id).map(crate::observed::Pace::not_before);
        if let Some(until) = pause.filter(|until| *until > observed.at) {
            self.held = Some((Reason::BackingOff, Some(until)));
            return;
        }
        let server = self.database.server();
        for (ordinal, Need { origin, branch, because }) in needs.into_iter().enumerate() {
            match self.maker.make((self.id, self.component), &server, ordinal, taken) {
                Ok(mut creation) => {
                    let identity = self.database.identity.clone();
                    creation.data = Some(DataCreation { identity, origin, branch });
                    self.creations.push((Arc::new(creation), because));
                }
                Err(why) => {
                    self.held = Some((why, None));
                    return;
                }
            }
        }
    }

    /// What is missing in the branch that writes go to.
    fn missing(&mut self) -> Vec<Need> {
        let wanted = self.database.identity.version;
        let (missing, origin, because) = match (self.head, self.holder) {
            (None, _) => {
                let missing = u32::from(self.fresh.is_empty());
                (missing, DataOrigin::Empty, Reason::Missing)
            }
            (Some(head), holder) if head.version != wanted => {
                if self.turns() {
                    return Vec::new();
                }
                let Some(next) = self.towards(head, holder) else { return Vec::new() };
                next
            }
            (Some(_), Some(holder)) => {
                let missing = self.standbys().saturating_sub(count(self.fresh.iter()));
                // A copy of what is not at work yet would wait for it.
                let missing = if holder.is_ready() { missing } else { 0 };
                let origin = DataOrigin::Standby { of: holder.id.clone() };
                (missing, origin, self.why_standby(holder))
            }
            (Some(head), None) => {
                // Two must never hold one volume, and an heir needs nothing to be made.
                let free = !self.all.iter().any(|i| self.holds_head(i));
                let missing = u32::from(free && self.heir().is_none());
                (missing, DataOrigin::Volume { volume: head.id.clone() }, Reason::Recovering)
            }
        };
        let branch = self.head.map_or(self.branch.number, |head| head.branch);
        let need = Need { origin, branch, because };
        std::iter::repeat_n(need, missing as usize).collect()
    }

    fn why_standby(&self, holder: &ObservedInstance) -> Reason {
        if let Some(drift) = holder.drift.first() {
            let why = Box::new(Reason::Drifted { drift: drift.clone() });
            return Reason::InPlaceOf { instance: holder.id.clone(), why };
        }
        if holder.digest == self.component.digest {
            return Reason::Missing;
        }
        Reason::Replaces { from: holder.digest }
    }

    fn conclude(self, seat: Seat) -> Decided {
        let observed = self.maker.observed;
        let holder = self.holder.filter(|holder| self.is_fresh(holder));
        let members = || self.fresh.iter().copied().chain(holder);
        let wanted = self.database.policy.replicas.saturating_add(1);
        let ready = count(members().filter(|i| i.is_ready())).min(wanted);
        let starting = count(members().filter(|i| !i.is_ready()));
        // It is through when the one in the seat is as wanted; what else is missing is counted.
        let seated = holder.is_some_and(|h| seat.primary.as_ref() == Some(&h.id));
        let pending = seat.pending.or((!seated).then_some(Reason::SwitchingOver));
        let fleet = Fleet {
            wanted,
            ready,
            starting,
            held: self.held,
            asleep: false,
            holds: false,
            split: None,
            pending,
            wake_at: seat.wake_at,
            bounds: (0, 0),
        };
        let identity = &self.database.identity;
        let route = DatabaseRoute {
            component: self.id.clone(),
            engine: identity.engine,
            primary: seat.primary,
            holds: seat.holds,
            user: identity.user.clone(),
            database: identity.database.clone(),
            passwords: passwords(self.maker.desired, observed, self.route, self.database),
        };
        Decided { creations: self.creations, retired: self.retired, route, fleet }
    }
}

/// The versions of its password that are accepted: the generation's, and those before while
/// something is there that may have been started with them.
fn passwords(
    desired: &Generation,
    observed: &Observed,
    route: Option<&DatabaseRoute>,
    database: &Database,
) -> Vec<SecretKey> {
    let secret = &database.policy.password;
    let declared = desired.content.components.get(secret).and_then(|c| c.spec.as_secret());
    let version = declared.and_then(|secret| secret.identity.known());
    let mut accepted = vec![SecretKey { secret: secret.clone(), version }];
    let older = |i: &ObservedInstance| {
        let wanted = desired.content.components.get(&i.component).map(|c| c.digest);
        Some(i.digest) != wanted
    };
    if observed.rollout.is_some() || observed.instances.iter().any(older) {
        let before = route.iter().flat_map(|route| &route.passwords);
        accepted.extend(before.filter(|key| !accepted.contains(key)).cloned().collect::<Vec<_>>());
    }
    accepted
}

fn is_primary(instance: &ObservedInstance) -> bool {
    said(instance).is_some_and(|said| said.role == Role::Primary)
}

fn said(instance: &ObservedInstance) -> Option<&Said> {
    instance.data.as_ref()?.said.as_ref()
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
