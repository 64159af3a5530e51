//! Addresses of interfaces.

use std::net::Ipv4Addr;

use super::INET;
use crate::network::netlink::{ACK, Batch, NEW, Refused, Socket, attributes, text, u32_host};

const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;

/// How far an address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Anywhere.
    Global = 0,
    /// On its link: never chosen as the source of traffic to elsewhere.
    Link = 253,
}

/// `struct ifaddrmsg`.
fn header(prefix: u8, scope: Scope, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [INET, prefix, 0, scope as u8, a, b, c, d]
}

/// Adds an address to an interface; the route to its range comes with it.
pub(crate) fn add(batch: &mut Batch, index: u32, address: Ipv4Addr, prefix: u8, scope: Scope) {
    let header = header(prefix, scope, index);
    batch.push("add an address", NEW_ADDRESS, ACK | NEW, &header, |attributes| {
        attributes.bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets());
        if prefix < 31 {
            let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from(u32::from(address) | host);
            attributes.bytes(IFA_BROADCAST, &broadcast.octets());
        }
    });
}

/// An address as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) ip: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) label: String,
}

/// All IPv4 addresses of the socket's namespace.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<Address>, Refused> {
    socket.dump(
        "list the addresses",
        GET_ADDRESS,
        &header(0, Scope::Global, 0),
        |_| (),
        |kind, payload| (kind == NEW_ADDRESS).then(|| parse(payload)).flatten(),
    )
}

fn parse(payload: &[u8]) -> Option<Address> {
    let mut local = None;
    let mut label = String::new();
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            IFA_LOCAL => local = value.try_into().ok().map(<Ipv4Addr as From<[u8; 4]>>::from),
            IFA_LABEL => label = text(value),
            _ => {}
        }
    }
    let index = u32_host(payload.get(4..8)?)?;
    Some(Address { index, ip: local?, prefix: *payload.get(1)?, label })
}
