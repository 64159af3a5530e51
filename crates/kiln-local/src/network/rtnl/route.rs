//! Routes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::INET;
use crate::network::netlink::{ACK, Batch, NEW, Refused, Socket, attributes, u32_host};

const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
/// Tables.
const MAIN: u8 = 254;
pub(crate) const LOCAL: u32 = 255;
/// Who has made the route: an administrator, not the kernel by itself.
const PROTOCOL_STATIC: u8 = 4;
/// Scopes.
const UNIVERSE: u8 = 0;
const HOST: u8 = 254;
/// Types.
const UNICAST: u8 = 1;
const TO_HERE: u8 = 2;

/// `struct rtmsg`.
fn header(prefix: u8, table: u8, scope: u8, kind: u8) -> [u8; 12] {
    [INET, prefix, 0, 0, table, PROTOCOL_STATIC, scope, kind, 0, 0, 0, 0]
}

/// Adds the default route.
pub(crate) fn add_default(batch: &mut Batch, index: u32, gateway: Ipv4Addr) {
    let header = header(0, MAIN, UNIVERSE, UNICAST);
    batch.push("add the default route", NEW_ROUTE, ACK | NEW, &header, |route| {
        route.bytes(RTA_GATEWAY, &gateway.octets()).u32(RTA_OIF, index);
    });
}

/// Makes every address of `range` an address of this namespace.
pub(crate) fn add_local(batch: &mut Batch, index: u32, range: Ipv4Net) {
    let table = u8::try_from(LOCAL).expect("the local table has a one-byte number");
    let header = header(range.prefix_len(), table, HOST, TO_HERE);
    batch.push("add the stable addresses", NEW_ROUTE, ACK | NEW, &header, |route| {
        route.bytes(RTA_DST, &range.network().octets()).u32(RTA_OIF, index);
    });
}

/// A route as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Net,
    pub(crate) table: u32,
    /// Index of the interface that it leads out of, where it leads out of one.
    pub(crate) out: Option<u32>,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Whether the kernel delivers to this namespace itself.
    pub(crate) local: bool,
}

/// All IPv4 routes of the socket's namespace, of all tables.
pub(crate) fn routes(socket: &mut Socket) -> Result<Vec<Route>, Refused> {
    socket.dump(
        "list the routes",
        GET_ROUTE,
        &header(0, 0, 0, 0),
        |_| (),
        |kind, payload| (kind == NEW_ROUTE).then(|| parse(payload)).flatten(),
    )
}

fn parse(payload: &[u8]) -> Option<Route> {
    let address = |value: &[u8]| <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut table = u32::from(*payload.get(4)?);
    let (mut out, mut gateway) = (None, None);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            RTA_DST => destination = address(value)?,
            RTA_OIF => out = u32_host(value),
            RTA_GATEWAY => gateway = address(value),
            RTA_TABLE => table = u32_host(value)?,
            _ => {}
        }
    }
    let destination = Ipv4Net::new(destination, *payload.get(1)?).ok()?;
    Some(Route { destination, table, out, gateway, local: *payload.get(7)? == TO_HERE })
}
