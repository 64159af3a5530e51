//! Two things that can be done to packet filters, said to the kernel in its own words
//! (`linux/netfilter/nf_tables.h`): there need not be an `nft` on the machine.

use kiln_netns::Namespace;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_TABLE: u16 = 0xa00;
const DELETE_TABLE: u16 = 0xa02;
/// `NLM_F_REQUEST`, with `NLM_F_ACK` or `NLM_F_CREATE`.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGED: u16 = 0x5;
const CREATE: u16 = 0x405;
const IPV4: u8 = 2;
const ALL: u8 = 0;
/// `NFNL_SUBSYS_NFTABLES`, which a batch is for.
const NFTABLES: u8 = 10;

fn message(kind: u16, flags: u16, family: u8, resource: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, resource]);
    bytes.extend(attributes);
    bytes
}

fn say(namespace: &Namespace, request: Vec<u8>) {
    let flags = SocketFlags::CLOEXEC;
    let open =
        || socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER));
    let socket = namespace.enter(open).unwrap().unwrap();
    let batch = [
        message(BEGIN, REQUEST, 0, NFTABLES, &[]),
        request,
        message(END, REQUEST, 0, NFTABLES, &[]),
    ];
    send(&socket, &batch.concat(), SendFlags::empty()).unwrap();
    let mut answer = [0; 1024];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).unwrap();
    let code = answer[16..length].first_chunk().map(|code| i32::from_ne_bytes(*code));
    assert_eq!(code, Some(0), "the kernel has refused");
}

/// Adds an empty table; its name has three bytes.
pub fn add_table(namespace: &Namespace, name: &str) {
    // NFTA_TABLE_NAME, with its end.
    let mut attribute = vec![8, 0, 1, 0];
    attribute.extend(name.as_bytes());
    attribute.push(0);
    assert_eq!(attribute.len(), 8);
    say(namespace, message(NEW_TABLE, CREATE, IPV4, 0, &attribute));
}

/// Deletes all tables, with all that is in them.
pub fn flush(namespace: &Namespace) {
    say(namespace, message(DELETE_TABLE, ACKNOWLEDGED, ALL, 0, &[]));
}
