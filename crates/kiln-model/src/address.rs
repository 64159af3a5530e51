//! Addresses inside a network.
//!
//! The lower half of a range belongs to components, whose stable addresses are handed out in
//! the order of their names and carried from a generation to its child as offsets, so that a
//! change of the range keeps them. The upper half belongs to instances. Offset 0 is the
//! network itself, 1 is Kiln's (the resolver), the last is broadcast.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::name::ComponentId;
use crate::spec::network::NetworkIdentity;

/// The offset of the first stable address.
const FIRST: u32 = 2;

/// For each network, the offsets of the components in it, and of those that were in it in a
/// generation that is still kept.
pub type Offsets = BTreeMap<ComponentId, BTreeMap<ComponentId, u32>>;

/// A network whose range is too small.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{network} has room for {room} {what} in {cidr}, and {needed} are needed: give it a wider `cidr`"
)]
pub struct NoRoom {
    /// The network.
    pub network: ComponentId,
    /// Its range.
    pub cidr: ipnet::Ipv4Net,
    /// What the addresses are for.
    pub what: &'static str,
    /// How many addresses there are.
    pub room: u32,
    /// How many are wanted.
    pub needed: u32,
}

/// The offsets of `members` in `network`: those in `carried` are kept, the others get the
/// lowest free ones in the order of their names. Entries of `carried` that are no members
/// stay reserved.
pub fn allocate<'a>(
    id: &ComponentId,
    network: &NetworkIdentity,
    members: impl Iterator<Item = &'a ComponentId>,
    carried: &BTreeMap<ComponentId, u32>,
) -> Result<BTreeMap<ComponentId, u32>, NoRoom> {
    let end = network.size() / 2;
    let mut offsets: BTreeMap<ComponentId, u32> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (component, offset) in carried {
        if (FIRST..end).contains(offset) && taken.insert(*offset) {
            offsets.insert(component.clone(), *offset);
        }
    }
    let members: BTreeSet<&ComponentId> = members.collect();
    let mut next = FIRST;
    for component in &members {
        if offsets.contains_key(*component) {
            continue;
        }
        while taken.contains(&next) {
            next += 1;
        }
        if next >= end {
            return Err(NoRoom {
                network: id.clone(),
                cidr: network.cidr,
                what: "components",
                room: end.saturating_sub(FIRST),
                needed: u32::try_from(members.len()).unwrap_or(u32::MAX),
            });
        }
        offsets.insert((*component).clone(), next);
        next += 1;
    }
    Ok(offsets)
}

/// How many instances fit into `network` at a time.
pub fn instance_room(network: &NetworkIdentity) -> u32 {
    (network.size() / 2).saturating_sub(1)
}

/// Free addresses for instances in `network`, beginning at a place that `seed` chooses, so
/// that an address is not used again at once.
pub fn free_for_instances<'a>(
    network: &NetworkIdentity,
    taken: &'a BTreeSet<Ipv4Addr>,
    seed: u32,
) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
    let (half, room) = (network.size() / 2, instance_room(network));
    let start = seed.checked_rem(room).unwrap_or(0);
    let base = network.host(half);
    (0..room)
        .map(move |i| Ipv4Addr::from(u32::from(base) + (start + i) % room))
        .filter(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(cidr: &str) -> NetworkIdentity {
        NetworkIdentity { cidr: cidr.parse().unwrap(), egress: Vec::new() }
    }

    fn ids(names: &[&str]) -> Vec<ComponentId> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn names_in_order_and_carried_offsets_kept() {
        let (net, id) = (network("10.0.0.0/24"), "network.n".parse().unwrap());
        let first = ids(&["server.b", "server.c"]);
        let offsets = allocate(&id, &net, first.iter(), &BTreeMap::new()).unwrap();
        assert_eq!(offsets.values().copied().collect::<Vec<_>>(), [2, 3]);
        let second = ids(&["server.a", "server.c"]);
        let offsets = allocate(&id, &net, second.iter(), &offsets).unwrap();
        assert_eq!(offsets[&second[1]], 3, "kept");
        assert_eq!(offsets[&second[0]], 4, "server.b's address is not reused");
    }

    #[test]
    fn a_small_range_is_an_error() {
        let (net, id) = (network("10.0.0.0/28"), "network.n".parse().unwrap());
        let many: Vec<ComponentId> =
            (0..7).map(|i| format!("server.s{i}").parse().unwrap()).collect();
        assert!(allocate(&id, &net, many[..6].iter(), &BTreeMap::new()).is_ok());
        let error = allocate(&id, &net, many.iter(), &BTreeMap::new()).unwrap_err();
        assert_eq!((error.room, error.needed), (6, 7));
    }

    #[test]
    fn instances_live_in_the_upper_half() {
        let net = network("10.0.0.0/28");
        let taken = BTreeSet::from([net.host(9)]);
        let free: Vec<_> = free_for_instances(&net, &taken, 5).collect();
        assert_eq!(free.len(), 6);
        assert!(free.iter().all(|a| (8..15).contains(&a.octets()[3]) && a.octets()[3] != 9));
        assert_eq!(free[0], net.host(13));
    }
}
