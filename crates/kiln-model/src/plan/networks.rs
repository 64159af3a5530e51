//! Which network instances are kept, made and ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::digest::Digest;
use crate::generation::Generation;
use crate::name::{ComponentId, InstanceId, Kind};
use crate::observed::Observed;
use crate::spec::network::NetworkIdentity;

use super::{NetworkCreation, Reason, fresh_id};

/// The network instance that a component's servers are (or will be) in.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) id: InstanceId,
    pub(super) identity: NetworkIdentity,
    /// Set when it is still to be made.
    pub(super) creation: Option<Arc<NetworkCreation>>,
}

/// What is decided about networks.
#[derive(Debug)]
pub(super) struct Networks {
    chosen: BTreeMap<ComponentId, Chosen>,
    reasons: BTreeMap<ComponentId, Reason>,
}

impl Networks {
    /// For each network of the generation: an instance that is what the digest says, or a new
    /// one.
    pub(super) fn decide(desired: &Generation, observed: &Observed) -> Self {
        let mut chosen = BTreeMap::new();
        let mut reasons = BTreeMap::new();
        let mut sound: BTreeMap<(&ComponentId, Digest), usize> = BTreeMap::new();
        let mut present: BTreeSet<&ComponentId> = BTreeSet::new();
        for (index, network) in observed.networks.iter().enumerate() {
            present.insert(&network.component);
            if network.drift.is_empty() {
                sound.entry((&network.component, network.digest)).or_insert(index);
            }
        }
        for (id, component) in desired.content.of_kind(Kind::Network) {
            let Some(spec) = component.spec.as_network() else { continue };
            let identity = spec.identity.clone();
            let existing = sound.get(&(id, component.digest)).map(|i| &observed.networks[*i]);
            let choice = if let Some(network) = existing {
                Chosen { id: network.id.clone(), identity, creation: None }
            } else {
                let creation = NetworkCreation {
                    id: fresh_id(desired, observed, id, 0),
                    stack: desired.stack.clone(),
                    component: id.clone(),
                    digest: component.digest,
                    generation: desired.number,
                    identity: identity.clone(),
                };
                Chosen { id: creation.id.clone(), identity, creation: Some(Arc::new(creation)) }
            };
            let reason = if present.contains(id) { Reason::NotAsDeclared } else { Reason::Missing };
            reasons.insert(id.clone(), reason);
            chosen.insert(id.clone(), choice);
        }
        Self { chosen, reasons }
    }

    pub(super) fn of(&self, network: &ComponentId) -> Option<&Chosen> {
        self.chosen.get(network)
    }

    pub(super) fn creations(&self) -> impl Iterator<Item = &Arc<NetworkCreation>> {
        self.chosen.values().filter_map(|c| c.creation.as_ref())
    }

    pub(super) fn reason(&self, network: &ComponentId) -> Reason {
        self.reasons.get(network).cloned().unwrap_or(Reason::Missing)
    }

    /// The networks that nobody is in, nobody will be in, and the generation does not name.
    /// While a rollout is unproved those stay that an abort would need.
    pub(super) fn doomed(&self, observed: &Observed, proved: bool) -> BTreeSet<InstanceId> {
        let wanted: BTreeSet<&InstanceId> = self.chosen.values().map(|c| &c.id).collect();
        let inhabited: BTreeSet<&InstanceId> =
            observed.instances.iter().map(|i| &i.network).collect();
        observed
            .networks
            .iter()
            .filter(|n| proved || !n.drift.is_empty())
            .map(|n| &n.id)
            .filter(|id| !wanted.contains(id) && !inhabited.contains(id))
            .cloned()
            .collect()
    }

    /// The addresses in use in each network instance.
    pub(super) fn taken(observed: &Observed) -> BTreeMap<InstanceId, BTreeSet<Ipv4Addr>> {
        let mut taken: BTreeMap<InstanceId, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for instance in &observed.instances {
            taken.entry(instance.network.clone()).or_default().insert(instance.address);
        }
        taken
    }
}
