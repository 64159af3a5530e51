//! Interfaces: a bridge, veth pairs, the ports of a bridge.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::Mac;
use crate::network::netlink::{
    ACK, Attributes, Batch, NEW, Refused, Socket, attributes, find, text, u32_host,
};

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
/// Interface flags: up.
const UP: u32 = 0x1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_LOCKED: u16 = 39;

/// `IF_OPER_UP`.
const OPER_UP: u8 = 6;
/// The longest wait of [`settle`], and how often it asks.
const SETTLE_TIME: Duration = Duration::from_millis(50);
const SETTLE_PAUSE: Duration = Duration::from_micros(100);

/// The loopback interface has this index in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, changed: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&changed.to_ne_bytes());
    bytes
}

/// Sets an interface up.
pub(crate) fn set_up(batch: &mut Batch, index: u32) {
    batch.push("set an interface up", NEW_LINK, ACK, &header(index, UP, UP), |_| ());
}

/// Adds a bridge, up, which floods no multicast by state and never waits before it forwards.
pub(crate) fn add_bridge(batch: &mut Batch, name: &str, mac: Mac) {
    batch.push("add the bridge", NEW_LINK, ACK | NEW, &header(0, UP, UP), |link| {
        link.text(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac).nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |bridge| {
                bridge
                    .u32(IFLA_BR_FORWARD_DELAY, 0)
                    .u32(IFLA_BR_STP_STATE, 0)
                    .u8(IFLA_BR_MCAST_SNOOPING, 0);
            });
        });
    });
}

/// Gives an interface a label that people and [`links`] can read; at most 255 bytes.
pub(crate) fn set_alias(batch: &mut Batch, name: &str, alias: &str) {
    batch.push("label an interface", NEW_LINK, ACK, &header(0, 0, 0), |link| {
        link.text(IFLA_IFNAME, name).text(IFLA_IFALIAS, alias);
    });
}

/// Half of a veth pair that is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

/// Adds a veth pair, both ends down: `near` here, `far` straight into the namespace `into`.
pub(crate) fn add_veth(batch: &mut Batch, near: End<'_>, far: End<'_>, into: BorrowedFd<'_>) {
    batch.push("add a veth pair", NEW_LINK, ACK | NEW, &header(0, 0, 0), |link| {
        describe(link, near);
        link.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |veth| {
                veth.nest(VETH_INFO_PEER, |peer| {
                    describe(peer.raw(&header(0, 0, 0)), far);
                    peer.bytes(IFLA_NET_NS_FD, &into.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
}

/// One queue each way: what passes a pair is never queued, and the kernel's default of one per
/// processor costs each pair time and memory.
fn describe(link: &mut Attributes<'_>, end: End<'_>) {
    link.text(IFLA_IFNAME, end.name)
        .bytes(IFLA_ADDRESS, &end.mac)
        .u32(IFLA_NUM_TX_QUEUES, 1)
        .u32(IFLA_NUM_RX_QUEUES, 1);
}

/// Makes an interface a port of the bridge with index `bridge`.
pub(crate) fn join(batch: &mut Batch, name: &str, bridge: u32) {
    batch.push("add a port to the bridge", NEW_LINK, ACK, &header(0, 0, 0), |link| {
        link.text(IFLA_IFNAME, name).u32(IFLA_MASTER, bridge);
    });
}

/// Closes a port of a bridge, then sets it up: it can't reach other closed ports, and takes only
/// frames from the hardware address that [`neighbour::add`](super::neighbour::add) has given it.
pub(crate) fn close_port(batch: &mut Batch, name: &str) {
    batch.push("close a port of the bridge", NEW_LINK, ACK, &header(0, UP, UP), |link| {
        link.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |port| {
                port.u8(IFLA_BRPORT_ISOLATED, 1)
                    .u8(IFLA_BRPORT_LOCKED, 1)
                    .u8(IFLA_BRPORT_LEARNING, 0)
                    .u8(IFLA_BRPORT_UNICAST_FLOOD, 0);
            });
        });
    });
}

/// Waits until an interface that was set up before what it depends on passes packets: an end of a
/// veth pair before the other end, or a bridge before its first port.
///
/// The kernel makes such an interface ready some time later, from its link watch, and drops what is sent
/// until then; a lost first packet costs a client a second. To ask for the interface makes it
/// ready at once since Linux 6.8, and tells whether it is.
pub(crate) fn settle(socket: &mut Socket, index: u32) -> Result<(), Refused> {
    let deadline = Instant::now() + SETTLE_TIME;
    let state = |payload: &[u8]| Some(find(payload.get(16..)?, IFLA_OPERSTATE)? == [OPER_UP]);
    let header = header(index, 0, 0);
    while !socket.get("ask for an interface", GET_LINK, &header, state)?.unwrap_or(true) {
        if Instant::now() >= deadline {
            // It is as whole as it can be made; packets will be sent again.
            break;
        }
        std::thread::sleep(SETTLE_PAUSE);
    }
    Ok(())
}

/// Deletes an interface; of a veth pair, both ends go.
pub(crate) fn delete(batch: &mut Batch, name: &str) {
    batch.push("delete an interface", DEL_LINK, ACK, &header(0, 0, 0), |link| {
        link.text(IFLA_IFNAME, name);
    });
}

/// An interface as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    /// `bridge`, `veth` and so on; none for hardware and loopback.
    pub(crate) kind: Option<String>,
    pub(crate) mac: Option<Mac>,
    /// Index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    pub(crate) up: bool,
    /// Whether it is a port as [`close_port`] leaves it.
    pub(crate) closed: bool,
}

/// All interfaces of the socket's namespace.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<Link>, Refused> {
    socket.dump(
        "list the interfaces",
        GET_LINK,
        &header(0, 0, 0),
        |_| (),
        |kind, payload| (kind == NEW_LINK).then(|| parse(payload)).flatten(),
    )
}

fn parse(payload: &[u8]) -> Option<Link> {
    let flags = u32_host(payload.get(8..12)?)?;
    let mut link =
        Link { index: u32_host(payload.get(4..8)?)?, up: flags & UP != 0, ..Link::default() };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_MASTER => link.master = u32_host(value),
            IFLA_LINKINFO => {
                link.kind = find(value, IFLA_INFO_KIND).map(text);
                link.closed = find(value, IFLA_INFO_SLAVE_DATA).is_some_and(is_closed);
            }
            _ => {}
        }
    }
    Some(link)
}

fn is_closed(port: &[u8]) -> bool {
    [
        (IFLA_BRPORT_ISOLATED, 1),
        (IFLA_BRPORT_LOCKED, 1),
        (IFLA_BRPORT_LEARNING, 0),
        (IFLA_BRPORT_UNICAST_FLOOD, 0),
    ]
    .iter()
    .all(|(kind, value)| find(port, *kind) == Some(&[*value]))
}
