//! Which hardware address is behind which port of a bridge.

use super::Mac;
use crate::network::netlink::{ACK, Batch, CREATE, REPLACE, Refused, Socket, find, u32_host};

const NEW_NEIGHBOUR: u16 = 28;
const DEL_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;
const NDA_LLADDR: u16 = 2;
/// `AF_BRIDGE`.
const BRIDGE: u8 = 7;
/// `NUD_NOARP`: neither learned nor aging, and not an address of the bridge itself.
const STATIC: u16 = 0x40;
/// `NTF_MASTER`: the bridge's table, not the port's own.
const OF_BRIDGE: u8 = 0x4;

/// `struct ndmsg`.
fn header(port: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut bytes = [BRIDGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, 0];
    bytes[4..8].copy_from_slice(&port.to_ne_bytes());
    bytes[8..10].copy_from_slice(&state.to_ne_bytes());
    bytes
}

/// Puts a hardware address behind the port with index `port`, and no other. It goes with the port.
pub(crate) fn add(batch: &mut Batch, port: u32, mac: Mac) {
    let header = header(port, STATIC, OF_BRIDGE);
    let flags = ACK | CREATE | REPLACE;
    batch.push("bind an address to a port", NEW_NEIGHBOUR, flags, &header, |neighbour| {
        neighbour.bytes(NDA_LLADDR, &mac);
    });
}

/// Takes a hardware address from a port.
pub(crate) fn delete(batch: &mut Batch, port: u32, mac: Mac) {
    let header = header(port, 0, OF_BRIDGE);
    batch.push("take an address from a port", DEL_NEIGHBOUR, ACK, &header, |neighbour| {
        neighbour.bytes(NDA_LLADDR, &mac);
    });
}

/// The ports' indices and the hardware addresses that are bound to them.
pub(crate) fn bound(socket: &mut Socket) -> Result<Vec<(u32, Mac)>, Refused> {
    let header = header(0, 0, 0);
    let mut bound = socket.dump(
        "list the bridge's addresses",
        GET_NEIGHBOUR,
        &header,
        |_| (),
        |kind, payload| {
            let state = u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?);
            if kind != NEW_NEIGHBOUR || state != STATIC {
                return None;
            }
            let mac = find(payload.get(12..)?, NDA_LLADDR)?.try_into().ok()?;
            Some((u32_host(payload.get(4..8)?)?, mac))
        },
    )?;
    // A kernel that knows VLANs binds an address once for each that the port is in.
    bound.sort_unstable();
    bound.dedup();
    Ok(bound)
}
