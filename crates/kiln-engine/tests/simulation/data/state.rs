//! What outlives a crash of the engine where there is a database: volumes, instances, the gateway; and
//! what happens to them as time passes.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::data::{ObservedData, ObservedGate, ObservedVolume, Role, Said};
use kiln_model::name::InstanceId;
use kiln_model::observed::{ObservedInstance, Phase, Verdict};
use kiln_model::quantity::{Bytes, Millis, Timestamp};
use kiln_model::route::{DatabaseRoute, RouteTable};

use crate::flaw::Flaw;
use crate::rng::Rng;
use crate::world::World;

/// One that has not answered for so long is dead.
pub const SILENCE: Millis = Millis::seconds(5);

/// Rows on a disk, by the numbers that clients gave them.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    pub rows: Vec<u64>,
    /// It would be served as a standby's.
    pub standby: bool,
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Node {
    pub seen: ObservedInstance,
    pub volume: InstanceId,
    /// When its data is made, and when it answers after that.
    pub made_at: Timestamp,
    pub ready_at: Timestamp,
    /// Whom its data is copied from.
    pub copied_from: Option<InstanceId>,
    /// Its making was cut off, by a crash of the engine or the end of what was copied.
    pub half: bool,
    /// Since when it answers nothing.
    pub hung_at: Option<Timestamp>,
    /// It receives nothing before then.
    pub deaf_until: Timestamp,
    /// When the present engine hears of it first.
    pub heard_at: Timestamp,
}

impl Node {
    /// Whether it does anything.
    pub fn works(&self, now: Timestamp) -> bool {
        self.seen.is_running() && !self.half && self.hung_at.is_none() && self.ready_at <= now
    }
}

/// All of it.
pub struct Data {
    pub nodes: BTreeMap<InstanceId, Node>,
    pub volumes: BTreeMap<InstanceId, Volume>,
    pub head: Option<InstanceId>,
    pub previous: Option<InstanceId>,
    /// What a write of the head that is not on the disk would be lost to.
    pub head_on_disk: Option<InstanceId>,
    pub synchronous: bool,
    /// Rows that were acknowledged.
    pub acknowledged: Vec<u64>,
    /// A row that is written and not acknowledged yet.
    pub pending: Option<u64>,
    pub next: u64,
    /// Until when a client's transaction goes on.
    pub busy_until: Timestamp,
    pub gate: Gate,
    /// What the present engine knows to have, together, all that was acknowledged.
    pub quorum: BTreeSet<InstanceId>,
    /// Of whom it was heard last, whether they have it or not, and by whom.
    pub members: (Option<InstanceId>, BTreeSet<InstanceId>),
    /// One of them has to have come so far before they count.
    pub doubt: Option<usize>,
    pub rng: Rng,
}

/// What the gateway does for clients.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// To whom writes go. It outlives the table only where the gateway has a bug.
    pub primary: Option<InstanceId>,
    pub held_since: Option<Timestamp>,
    pub settled_since: Option<Timestamp>,
    pub released_at: Option<Timestamp>,
}

impl Data {
    pub fn new(seed: u64) -> Self {
        Self {
            nodes: BTreeMap::new(),
            volumes: BTreeMap::new(),
            head: None,
            previous: None,
            head_on_disk: None,
            synchronous: false,
            acknowledged: Vec::new(),
            pending: None,
            next: 0,
            busy_until: Timestamp(0),
            gate: Gate::default(),
            quorum: BTreeSet::new(),
            members: (None, BTreeSet::new()),
            doubt: None,
            rng: Rng::new(seed, "data"),
        }
    }

    /// Standbys that receive from the holder of the head.
    fn following(&self, now: Timestamp) -> Vec<InstanceId> {
        let standby = |node: &&Node| {
            let volume = self.volumes.get(&node.volume);
            node.works(now) && volume.is_some_and(|volume| volume.standby)
        };
        if self.holder(now).is_none() {
            return Vec::new();
        }
        self.nodes.values().filter(standby).map(|node| node.seen.id.clone()).collect()
    }

    /// The instance that holds the head and works.
    pub fn holder(&self, now: Timestamp) -> Option<&Node> {
        self.nodes.values().find(|node| Some(&node.volume) == self.head.as_ref() && node.works(now))
    }
}

pub fn route(table: Option<&RouteTable>) -> Option<&DatabaseRoute> {
    table?.databases.first()
}

impl World {
    /// A moment passes: clients write, standbys receive, the gateway settles.
    pub fn pulse(&mut self) {
        let now = self.now();
        self.cut_off(now);
        self.write(now);
        self.receive(now);
        self.acknowledge(now);
        self.notice(now);
        let route = route(self.table.as_ref());
        let holds = route.is_some_and(|route| route.holds || route.primary.is_none());
        let gate = &mut self.data.gate;
        let busy = self.data.busy_until > now || self.data.pending.is_some();
        gate.settled_since = match gate.settled_since {
            Some(since) if holds => Some(since),
            _ => (holds && !busy).then_some(now),
        };
    }

    /// Copies end with what they are made of.
    fn cut_off(&mut self, now: Timestamp) {
        let works = |id: &InstanceId| self.data.nodes.get(id).is_some_and(|node| node.works(now));
        let making = self.data.nodes.values().filter(|node| node.made_at > now);
        let from =
            making.filter_map(|node| Some((node.seen.id.clone(), node.copied_from.clone()?)));
        let gone: Vec<InstanceId> =
            from.filter(|(_, from)| !works(from)).map(|(id, _)| id).collect();
        for id in gone {
            self.data.nodes.get_mut(&id).unwrap().half = true;
        }
    }

    fn write(&mut self, now: Timestamp) {
        let holds = self.data.gate.held_since.is_some();
        let goes_on = !holds || self.data.busy_until > now || self.flaw == Flaw::LeakyFence;
        let Some(primary) = self.data.gate.primary.clone().filter(|_| goes_on) else { return };
        let Some(node) = self.data.nodes.get(&primary).filter(|node| node.works(now)) else {
            self.data.pending = None;
            return;
        };
        let name = node.volume.clone();
        if self.data.pending.is_some() {
            return;
        }
        if self.data.head.as_ref() != Some(&name) {
            return self.violation(format!("{primary} takes a write and does not hold the head"));
        }
        let data = &mut self.data;
        data.next += 1;
        let volume = data.volumes.get_mut(&name).unwrap();
        if volume.standby {
            return self.violation(format!("{primary} takes a write as a standby"));
        }
        let last = data.acknowledged.last();
        let lacks = last.is_some_and(|last| volume.rows.binary_search(last).is_err());
        volume.rows.push(data.next);
        data.pending = Some(data.next);
        if data.rng.one_in(200) && data.busy_until <= now {
            data.busy_until = now.after(Millis(data.rng.below(7_000)));
        }
        if lacks {
            self.violation(format!("{primary} takes writes and lacks what was acknowledged"));
        }
    }

    fn receive(&mut self, now: Timestamp) {
        let Some(head) = self.data.head.clone() else { return };
        let ahead = self.data.volumes[&head].rows.clone();
        for id in self.data.following(now) {
            let node = &self.data.nodes[&id];
            let (name, deaf) = (node.volume.clone(), node.deaf_until > now);
            let lag = usize::try_from(self.data.rng.below(4)).unwrap();
            let volume = self.data.volumes.get_mut(&name).unwrap();
            if deaf {
                continue;
            }
            if !ahead.starts_with(&volume.rows) {
                // It has what its primary never had: PostgreSQL would refuse to go on.
                self.violation(format!("{id} cannot follow"));
                continue;
            }
            let upto = ahead.len().saturating_sub(lag).max(volume.rows.len());
            volume.rows.extend_from_slice(&ahead[volume.rows.len()..upto]);
        }
    }

    /// A row counts when a standby has it, where writes wait for one.
    fn acknowledge(&mut self, now: Timestamp) {
        let Some(row) = self.data.pending else { return };
        let has = |id: &InstanceId| {
            let volume = &self.data.volumes[&self.data.nodes[id].volume];
            volume.rows.binary_search(&row).is_ok()
        };
        if !self.data.synchronous || self.data.following(now).iter().any(has) {
            self.data.acknowledged.push(row);
            self.data.pending = None;
        }
    }

    /// What the engine comes to know of who has what.
    fn notice(&mut self, now: Timestamp) {
        let heard = |node: &Node| node.works(now) && node.heard_at <= now;
        let holder = self.data.holder(now).filter(|node| heard(node));
        if let Some(holder) = holder {
            let (id, ahead) = (holder.seen.id.clone(), self.rows(&holder.seen.id));
            let members: BTreeSet<InstanceId> = self.data.following(now).into_iter().collect();
            let (before, known) = &self.data.members;
            let went = *before != Some(id.clone()) || !known.is_subset(&members);
            if went && self.flaw != Flaw::ForgottenMember {
                self.data.doubt = Some(ahead);
            }
            let doubt = self.data.doubt.unwrap_or(0);
            if doubt == 0 || members.iter().any(|member| self.rows(member) >= doubt) {
                self.data.doubt = None;
            }
            let sure = self.data.doubt.is_none();
            self.data.quorum = if sure { members.clone() } else { BTreeSet::new() };
            self.data.members = (Some(id), members);
        }
        let answers = |id| self.data.nodes.get(id).is_some_and(heard);
        if !self.data.quorum.iter().all(answers) {
            self.data.quorum.clear();
        }
    }

    fn rows(&self, instance: &InstanceId) -> usize {
        let volume = self.data.nodes.get(instance).and_then(|n| self.data.volumes.get(&n.volume));
        volume.map_or(0, |volume| volume.rows.len())
    }

    pub fn observed_nodes(&self) -> Vec<ObservedInstance> {
        let now = self.now();
        let holder = self.data.holder(now).map(|node| node.seen.id.clone());
        let following = self.data.following(now);
        let shown = self.data.nodes.values().map(|node| {
            let mut seen = node.seen.clone();
            let volume = self.data.volumes.get(&node.volume);
            let heard = node.heard_at <= now && node.works(now);
            let said = volume.filter(|_| heard).map(|volume| Said {
                at: now,
                role: if volume.standby { Role::Standby } else { Role::Primary },
                position: volume.rows.len() as u64,
                follows: holder.clone().filter(|_| following.contains(&seen.id)),
                synchronous: self.data.synchronous
                    && volume.standby
                    && self.data.quorum.contains(&seen.id),
            });
            let volume = node.volume.clone();
            seen.data = Some(ObservedData { volume, branch: 0, origin: None, said });
            if seen.phase == Phase::Running {
                seen.health = health(node, now);
            }
            seen
        });
        shown.collect()
    }

    pub fn observed_volumes(&self) -> Vec<ObservedVolume> {
        let making = |id: &InstanceId| {
            self.data
                .nodes
                .get(id)
                .is_some_and(|n| n.volume == *id && (n.half || n.made_at > self.now()))
        };
        let whole = self.data.volumes.keys().filter(|id| !making(id));
        let volume = |id: &InstanceId| ObservedVolume {
            id: id.clone(),
            component: kiln_model::fixture::id("database.orders"),
            generation: 1,
            version: 15,
            head: self.data.head.as_ref() == Some(id),
            branch: 0,
            tip: false,
            left_at: None,
            used: Bytes(0),
        };
        whole.map(volume).collect()
    }

    pub fn observed_gates(&self) -> Vec<ObservedGate> {
        let Some(route) = route(self.table.as_ref()) else { return Vec::new() };
        let gate = self.data.gate.clone();
        vec![ObservedGate {
            component: route.component.clone(),
            primary: route.primary.clone(),
            settled_since: gate.settled_since,
            held_since: gate.held_since,
            released_at: gate.released_at,
            sessions: 1,
            busy: u32::from(gate.settled_since.is_none()),
        }]
    }
}

fn health(node: &Node, now: Timestamp) -> Verdict {
    if node.half {
        let reason = "the daemon ended while it was being made".to_owned();
        return Verdict::Dead { since: now, reason };
    }
    if node.made_at > now {
        return Verdict::Starting { last: Some("its data is being made".to_owned()) };
    }
    match node.hung_at {
        Some(since) if now.since(since) >= SILENCE => {
            Verdict::Dead { since: now, reason: "it does not answer".to_owned() }
        }
        _ if node.heard_at > now => Verdict::Starting { last: None },
        _ if node.ready_at <= now => Verdict::Ready { since: node.ready_at },
        _ => Verdict::Starting { last: Some("it does not answer yet".to_owned()) },
    }
}
