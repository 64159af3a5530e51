//! Two things that can be done to packet filters, said to the kernel in its own words
//! (`linux/netfilter/nf_tables.h`): there need not be an `nft` on the machine.

use std::os::fd::OwnedFd;

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

fn open(namespace: &Namespace) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let open =
        || socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER));
    namespace.enter(open).unwrap().unwrap()
}

/// The last of the requests is to be acknowledged.
fn say(namespace: &Namespace, request: Vec<u8>) {
    let socket = open(namespace);
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

/// An attribute (`linux/netlink.h`): its length, its kind, and what it says, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A rule as the kernel lists it: whose it is, and its attributes by kind.
struct Rule {
    family: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Rule {
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    const EXPRESSIONS: u16 = 4;
    const USERDATA: u16 = 7;

    fn get(&self, kind: u16) -> Option<&Vec<u8>> {
        self.attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// A message's attributes, of the kinds given.
    fn only(&self, kinds: &[u16]) -> Vec<u8> {
        let chosen = self.attributes.iter().filter(|(kind, _)| kinds.contains(kind));
        chosen
            .flat_map(|(kind, value)| {
                // Expressions are attributes themselves.
                let nested = if *kind == Self::EXPRESSIONS { 0x8000 } else { 0 };
                attribute(kind | nested, value)
            })
            .collect()
    }
}

fn parse(message: &[u8]) -> Rule {
    let (mut rest, mut attributes) = (&message[20..], Vec::new());
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
        attributes.push((kind, rest[4..length].to_vec()));
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Rule { family: message[16], attributes }
}

/// All rules of all chains, in their order.
fn rules(namespace: &Namespace) -> Vec<Rule> {
    const GET_RULE: u16 = 0xa07;
    const DUMP: u16 = 0x301;
    const DONE: u16 = 3;
    let socket = open(namespace);
    send(&socket, &message(GET_RULE, DUMP, ALL, 0, &[]), SendFlags::empty()).unwrap();
    let (mut found, mut answer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty()).unwrap();
        let mut rest = &answer[..length];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(*rest.first_chunk().unwrap()) as usize;
            if u16::from_ne_bytes([rest[4], rest[5]]) == DONE {
                return found;
            }
            found.push(parse(&rest[..length]));
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// Puts the first rule of a chain that has several behind the others; whether there was one.
pub fn reorder(namespace: &Namespace) -> bool {
    const NEW_RULE: u16 = 0xa06;
    const DELETE_RULE: u16 = 0xa08;
    const APPENDED: u16 = CREATE | 0x800;
    let rules = rules(namespace);
    let chain =
        |rule: &Rule| (rule.family, rule.get(Rule::TABLE).cloned(), rule.get(Rule::CHAIN).cloned());
    let pair = rules.windows(2).find(|pair| {
        chain(&pair[0]) == chain(&pair[1])
            && pair[0].get(Rule::EXPRESSIONS) != pair[1].get(Rule::EXPRESSIONS)
    });
    let Some([first, _]) = pair else { return false };
    let place = [Rule::TABLE, Rule::CHAIN];
    let whole = [Rule::TABLE, Rule::CHAIN, Rule::EXPRESSIONS, Rule::USERDATA];
    let gone = first.only(&[&place[..], &[Rule::HANDLE]].concat());
    let requests = [
        message(DELETE_RULE, REQUEST, first.family, 0, &gone),
        message(NEW_RULE, APPENDED, first.family, 0, &first.only(&whole)),
    ];
    say(namespace, requests.concat());
    true
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
