//! Sealing: each spec gets its digest, and what does not fit together is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::canonical::EncodeError;
use crate::digest::Digest;
use crate::name::{ComponentId, Kind};
use crate::route::Protocol;
use crate::spec::image::Inputs;
use crate::spec::secret::SecretVersion;
use crate::spec::{Body, Spec};

/// A spec with what is known of its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The spec.
    pub spec: Arc<Spec>,
    /// Its digest, or why there is none before `apply`.
    pub digest: Result<Digest, Unknown>,
}

/// Why a digest is not known before `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// This image has no lock yet.
    NotLocked(ComponentId),
    /// This secret is to be generated.
    ToBeGenerated(ComponentId),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::NotLocked(image) => write!(f, "{image} is not locked yet"),
            Unknown::ToBeGenerated(secret) => write!(f, "{secret} is to be generated"),
        }
    }
}

/// What keeps a set of specs from being a generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Two specs have one name.
    #[error("{0} is declared twice")]
    Duplicate(ComponentId),
    /// The body is of another kind than the name says.
    #[error("{0} is not of the kind that its name says")]
    WrongKind(ComponentId),
    /// A reference to what does not exist, or is of a kind that does not fit there.
    #[error("{from} refers to {to}, which does not exist")]
    Dangling {
        /// Who refers.
        from: ComponentId,
        /// To what.
        to: ComponentId,
    },
    /// Components that talk to each other, or are built from each other, in a circle.
    #[error("a cycle of references: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<ComponentId>),
    /// Two endpoints on one address.
    #[error("{first} and {second} both listen on {listen}")]
    SameListener {
        /// The endpoint that comes first by name.
        first: ComponentId,
        /// The other.
        second: ComponentId,
        /// The address.
        listen: SocketAddr,
    },
    /// A server that may connect to two components with one address.
    #[error(
        "{from} connects to {first} and {second}, which both have the address {address}: \
         give their networks different `cidr`s"
    )]
    SameAddress {
        /// Who connects.
        from: ComponentId,
        /// The component that comes first by name.
        first: ComponentId,
        /// The other.
        second: ComponentId,
        /// The address.
        address: Ipv4Addr,
    },
    /// An identity that has no canonical encoding.
    #[error("{id} cannot be given a digest")]
    Encode {
        /// The component.
        id: ComponentId,
        /// Why.
        source: EncodeError,
    },
}

/// Gives every spec its digest. All errors are returned, not the first.
pub fn seal(specs: Vec<Spec>) -> Result<BTreeMap<ComponentId, Sealed>, Vec<SealError>> {
    let mut errors = Vec::new();
    let mut by_id: BTreeMap<ComponentId, Arc<Spec>> = BTreeMap::new();
    for spec in specs {
        if !spec.is_consistent() {
            errors.push(SealError::WrongKind(spec.id.clone()));
        }
        if let Some(twin) = by_id.insert(spec.id.clone(), Arc::new(spec)) {
            errors.push(SealError::Duplicate(twin.id.clone()));
        }
    }
    check_references(&by_id, &mut errors);
    check_addresses(&by_id, &mut errors);
    check_listeners(&by_id, &mut errors);
    for edges in [Spec::talks_to, Spec::built_from] {
        if let Some(cycle) = find_cycle(&by_id, edges) {
            errors.push(SealError::Cycle(cycle));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    digest_all(by_id)
}

/// Digests in an order in which whatever is built from something comes after it.
fn digest_all(
    by_id: BTreeMap<ComponentId, Arc<Spec>>,
) -> Result<BTreeMap<ComponentId, Sealed>, Vec<SealError>> {
    let mut errors = Vec::new();
    let mut sealed: BTreeMap<ComponentId, Sealed> = BTreeMap::new();
    for id in building_order(&by_id) {
        let Some(spec) = by_id.get(&id).cloned() else { continue };
        let digest = if let Some(reason) = unknown(&spec, &sealed) {
            Err(reason)
        } else {
            let known = |id: &ComponentId| sealed.get(id)?.digest.as_ref().ok().copied();
            match spec.digest(&known) {
                Ok(digest) => Ok(digest),
                Err(source) => {
                    errors.push(SealError::Encode { id, source });
                    continue;
                }
            }
        };
        sealed.insert(id, Sealed { spec, digest });
    }
    if errors.is_empty() { Ok(sealed) } else { Err(errors) }
}

fn unknown(spec: &Spec, sealed: &BTreeMap<ComponentId, Sealed>) -> Option<Unknown> {
    match &spec.body {
        Body::Image(image) if image.identity.inputs == Inputs::Unlocked => {
            Some(Unknown::NotLocked(spec.id.clone()))
        }
        Body::Secret(secret) if secret.identity.version == SecretVersion::ToBeGenerated => {
            Some(Unknown::ToBeGenerated(spec.id.clone()))
        }
        _ => spec.built_from().into_iter().find_map(|id| sealed.get(id)?.digest.clone().err()),
    }
}

fn check_references(by_id: &BTreeMap<ComponentId, Arc<Spec>>, errors: &mut Vec<SealError>) {
    for (id, spec) in by_id {
        for to in spec.built_from() {
            // `Kind` is ordered so that what is built from something comes after it, but for
            // images on images.
            let fits = to.kind < id.kind || (to.kind == Kind::Image && id.kind == Kind::Image);
            if !by_id.contains_key(to) || !fits {
                errors.push(SealError::Dangling { from: id.clone(), to: to.clone() });
            }
        }
        for to in spec.talks_to() {
            if !by_id.contains_key(to) || !matches!(to.kind, Kind::Server | Kind::Database) {
                errors.push(SealError::Dangling { from: id.clone(), to: to.clone() });
            }
        }
    }
}

/// The components so that each comes after those that it is built from: in the order of the
/// kinds, and images after the images that they are built from. Total: of a cycle, which sealing
/// refuses, each stands somewhere.
pub fn building_order(by_id: &BTreeMap<ComponentId, Arc<Spec>>) -> Vec<ComponentId> {
    let mut order = Vec::with_capacity(by_id.len());
    let mut met: BTreeSet<&ComponentId> = BTreeSet::new();
    for id in by_id.keys() {
        // Depth first with a stack of its own. What is met again on the way down is a cycle.
        let mut open: Vec<(&ComponentId, Vec<&ComponentId>)> = Vec::new();
        let mut enter = Some(id);
        loop {
            if let Some((id, spec)) = enter.take().and_then(|id| by_id.get_key_value(id))
                && met.insert(id)
            {
                let images = spec.as_image().map(|_| spec.built_from()).unwrap_or_default();
                open.push((id, images));
            }
            let Some((id, next)) = open.last_mut() else { break };
            enter = next.pop();
            if enter.is_none() {
                order.push((*id).clone());
                open.pop();
            }
        }
    }
    order
}

/// From inside one network an address means one component.
fn check_addresses(by_id: &BTreeMap<ComponentId, Arc<Spec>>, errors: &mut Vec<SealError>) {
    for (id, spec) in by_id {
        let mut seen: BTreeMap<Ipv4Addr, &ComponentId> = BTreeMap::new();
        for connection in spec.as_server().iter().flat_map(|s| &s.identity.connects) {
            let address = connection.address;
            let first = seen.entry(address).or_insert(&connection.to);
            if *first != &connection.to {
                errors.push(SealError::SameAddress {
                    from: id.clone(),
                    first: (*first).clone(),
                    second: connection.to.clone(),
                    address,
                });
            }
        }
    }
}

fn check_listeners(by_id: &BTreeMap<ComponentId, Arc<Spec>>, errors: &mut Vec<SealError>) {
    let mut seen: BTreeMap<(SocketAddr, bool), &ComponentId> = BTreeMap::new();
    for (id, spec) in by_id {
        let Some(endpoint) = spec.as_endpoint() else { continue };
        let listen = endpoint.identity.listen;
        // Port 0 asks for any free port.
        if listen.port() == 0 {
            continue;
        }
        // Datagrams have ports of their own.
        let datagrams = endpoint.policy.protocol == Protocol::Udp;
        if let Some(first) = seen.insert((listen, datagrams), id) {
            errors.push(SealError::SameListener {
                first: first.clone(),
                second: id.clone(),
                listen,
            });
        }
    }
}

/// Some cycle of references, its first component repeated at the end.
fn find_cycle(
    by_id: &BTreeMap<ComponentId, Arc<Spec>>,
    edges: for<'s> fn(&'s Spec) -> Vec<&'s ComponentId>,
) -> Option<Vec<ComponentId>> {
    let mut done: BTreeSet<&ComponentId> = BTreeSet::new();
    for root in by_id.keys() {
        // Depth first with a stack of its own: a long chain must not end the process.
        let mut path: Vec<(&ComponentId, Vec<&ComponentId>)> = Vec::new();
        let mut on_path: BTreeSet<&ComponentId> = BTreeSet::new();
        let mut enter = Some(root);
        loop {
            if let Some(id) = enter.take()
                && !done.contains(id)
            {
                if on_path.contains(id) {
                    let start = path.iter().position(|(p, _)| *p == id).unwrap_or(0);
                    let mut cycle: Vec<_> = path[start..].iter().map(|(p, _)| *p).collect();
                    cycle.push(id);
                    return Some(cycle.into_iter().cloned().collect());
                }
                let next = by_id.get(id).map(|spec| edges(spec)).unwrap_or_default();
                on_path.insert(id);
                path.push((id, next));
            }
            let Some((id, next)) = path.last_mut() else { break };
            enter = next.pop();
            if enter.is_none() {
                done.insert(id);
                on_path.remove(id);
                path.pop();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
