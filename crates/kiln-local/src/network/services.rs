//! What the instances of a network reach: stable addresses, each led to the gateway.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kiln_netns::Namespace;

use super::error::{About, Error};
use super::name::TABLE;
use super::netlink::{Protocol, Refused, Socket};
use super::nft::{self, Element, Family, SetName, Table, Transaction};
use super::rules::{SERVICES, service_key};

const SET: SetName = (Family::Ip, TABLE, SERVICES);

/// A component that instances of the network may reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The component's stable address, in the lower half of the network's range.
    pub address: Ipv4Addr,
    /// Port of the gateway's listener at the network's first address. The listener learns the
    /// address and the port that the client asked for by `SO_ORIGINAL_DST`.
    pub port: u16,
    /// Addresses of the instances that may. All others are refused.
    pub clients: Vec<Ipv4Addr>,
}

/// Replaces all services of a network at once: no connection meets a state between the old and
/// the new, and connections that exist go on as they are.
pub fn set_services(network: &Namespace, services: &[Service]) -> Result<(), Error> {
    let subject = "the network's services";
    let mut elements = BTreeMap::new();
    for service in services {
        for client in &service.clients {
            let port = service.port.to_be_bytes().to_vec();
            elements.insert(service_key(*client, service.address), port);
        }
    }
    let mut socket = Socket::open_in(network, Protocol::Netfilter).about(subject)?;
    match replace(&mut socket, &elements) {
        // Somebody else has changed the map meanwhile: it is measured again.
        Err(refused) if refused.is_absent() => replace(&mut socket, &elements),
        answer => answer,
    }
    .about(subject)
}

/// Adds what is missing and deletes what is too much, in one transaction. What stays is not
/// touched: a transaction that deletes makes the kernel wait for a grace period in the end.
fn replace(socket: &mut Socket, wanted: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), Refused> {
    let there = nft::list::elements(socket, SET)?;
    let extra = there.iter().filter(|(key, port)| wanted.get(*key) != Some(port));
    let missing = wanted.iter().filter(|(key, port)| there.get(*key) != Some(port));
    let extra: Vec<Element<'_>> = extra.map(|(key, port)| (&key[..], &port[..])).collect();
    let missing: Vec<Element<'_>> = missing.map(|(key, port)| (&key[..], &port[..])).collect();
    if extra.is_empty() && missing.is_empty() {
        return Ok(());
    }
    Transaction::new().delete_elements(SET, &extra).add_elements(SET, &missing).commit(socket)
}

/// The services that a network's table has.
pub(super) fn services_of(table: &Table) -> Vec<Service> {
    let mut found: BTreeMap<(Ipv4Addr, u16), Vec<Ipv4Addr>> = BTreeMap::new();
    let map = table.sets.iter().filter(|set| set.name == SERVICES);
    for (key, value) in map.flat_map(|set| &set.elements) {
        let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
        let (Some((client, service)), Ok(port)) = (key.split_at_checked(4), value[..].try_into())
        else {
            continue;
        };
        if let (Some(client), Some(service)) = (address(client), address(service)) {
            found.entry((service, u16::from_be_bytes(port))).or_default().push(client);
        }
    }
    found.into_iter().map(|((address, port), clients)| Service { address, port, clients }).collect()
}
