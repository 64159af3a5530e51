//! The packet filter rules of a network, as values.
//!
//! [`network_tables`] and [`host_table`] are pure: the same functions say what is installed and
//! what a measurement is compared with.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::name::{BRIDGE, FORWARDING_TABLE, HOST_PREFIX, TABLE, UPLINK};
use super::nft::rule::{
    ARP_SENDER, ARP_SENDER_MAC, ECHO_REQUEST, FRAME_ARP, FRAME_IP, FRAME_SOURCE, ICMP,
    IP_DESTINATION, IP_SOURCE, META_IN, META_OUT, Place, TCP, UDP, name,
};
use super::nft::{Chain, Family, Field, Hook, Point, Register, Rule, Set, Table, Verdict};
use super::rtnl::Mac;

/// The map from a client and a stable address to the gateway's port.
pub(super) const SERVICES: &str = "services";
/// The set of addresses with the hardware address that may send from each.
pub(super) const SOURCES: &str = "sources";
/// The set of the host's interfaces between which Kiln must not open the way.
const BEFORE: &str = "before";
/// Where resolvers answer.
const DNS: u16 = 53;
/// Where clouds hand out credentials; open only to a range within it.
pub(super) const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// Priorities of chains, as `nft` names them.
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_DESTINATION_NAT: i32 = -100;
const PRIORITY_SOURCE_NAT: i32 = 100;
const PRIORITY_BRIDGE_FIRST: i32 = -300;

/// Where the parts of a key of [`SOURCES`] go: a hardware address takes two registers.
const KEY_MAC: Register = Register(0);
const KEY_ADDRESS: Register = Register(2);
/// Where the parts of a key of [`SERVICES`] go, and its value.
const KEY_CLIENT: Register = Register(0);
const KEY_SERVICE: Register = Register(1);
const PORT: Register = Register(4);

/// An address with its hardware address, as a key of [`SOURCES`].
pub(super) fn source_key(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    [&mac[..], &[0, 0], &address.octets()].concat()
}

/// The hardware address and the address of a key of [`SOURCES`].
pub(super) fn parse_source_key(key: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let mac = key.get(..6)?.try_into().ok()?;
    let address: [u8; 4] = key.get(8..12)?.try_into().ok()?;
    Some((mac, address.into()))
}

/// A client and the stable address that it may reach, as a key of [`SERVICES`].
pub(super) fn service_key(client: Ipv4Addr, service: Ipv4Addr) -> Vec<u8> {
    [client.octets(), service.octets()].concat()
}

/// The tables in a network's namespace, with empty sets.
pub(super) fn network_tables(cidr: Ipv4Net, egress: &[Ipv4Net]) -> Vec<Table> {
    let sources = vec![Field::Mac, Field::Ipv4];
    let bridge = Table {
        family: Family::Bridge,
        name: TABLE.to_owned(),
        sets: vec![set(SOURCES, sources, None)],
        chains: vec![bridge_chain()],
    };
    let mut chains = vec![services_chain(cidr), input_chain(cidr), forward_chain(egress)];
    if !egress.is_empty() {
        let rules = vec![Rule::new().leaves_by(UPLINK).masquerade()];
        chains.push(source_nat_chain(rules));
    }
    let services = vec![Field::Ipv4, Field::Ipv4];
    let ip = Table {
        family: Family::Ip,
        name: TABLE.to_owned(),
        sets: vec![set(SERVICES, services, Some(Field::Port))],
        chains,
    };
    vec![ip, bridge]
}

fn set(name: &str, key: Vec<Field>, value: Option<Field>) -> Set {
    Set { name: name.to_owned(), key, value, elements: BTreeMap::new() }
}

fn chain(name: &str, hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(hook), rules }
}

fn hook(kind: &str, point: Point, priority: i32, policy: Verdict) -> Hook {
    Hook { kind: kind.to_owned(), point, priority, policy }
}

fn source_nat_chain(rules: Vec<Rule>) -> Chain {
    let hook = hook("nat", Point::Postrouting, PRIORITY_SOURCE_NAT, Verdict::Accept);
    chain("postrouting", hook, rules)
}

/// An instance sends only from the address that belongs to its hardware address, which the bridge
/// binds to its port.
fn bridge_chain() -> Chain {
    let known = |rule: Rule, mac: Place, address: Place| {
        rule.meta(META_IN).payload(mac, KEY_MAC).payload(address, KEY_ADDRESS).lookup(SOURCES, None)
    };
    let ip = known(Rule::new().frame(FRAME_IP), FRAME_SOURCE, IP_SOURCE);
    let arp = known(Rule::new().frame(FRAME_ARP), FRAME_SOURCE, ARP_SENDER);
    let arp = known(arp, ARP_SENDER_MAC, ARP_SENDER);
    let hook = hook("filter", Point::Prerouting, PRIORITY_BRIDGE_FIRST, Verdict::Drop);
    chain("sources", hook, vec![ip.accept(), arp.accept()])
}

/// A TCP connection from a client that may goes to the gateway's listener.
fn services_chain(cidr: Ipv4Net) -> Chain {
    let rule = Rule::new()
        .comes_in_by(BRIDGE)
        .transport(TCP)
        .payload(IP_SOURCE, KEY_CLIENT)
        .payload(IP_DESTINATION, KEY_SERVICE)
        .lookup(SERVICES, Some(PORT))
        .redirect(super::gateway(cidr), PORT);
    let hook = hook("nat", Point::Prerouting, PRIORITY_DESTINATION_NAT, Verdict::Accept);
    chain("services", hook, vec![rule])
}

/// What the namespace itself takes: answers, redirected connections, questions to the resolver
/// and echo requests. Other traffic to stable addresses is refused at once.
fn input_chain(cidr: Ipv4Net) -> Chain {
    let first = super::gateway(cidr);
    let inside = || Rule::new().comes_in_by(BRIDGE);
    let rules = vec![
        Rule::new().established_or_related().accept(),
        Rule::new().comes_in_by("lo").accept(),
        inside().redirected().accept(),
        inside().to(first).transport(UDP).port(DNS).accept(),
        inside().to(first).transport(TCP).port(DNS).accept(),
        inside().to(first).transport(ICMP).icmp(ECHO_REQUEST).accept(),
        inside().towards(super::stable(cidr)).transport(TCP).reset(),
        inside().towards(super::stable(cidr)).prohibit(),
    ];
    chain("input", hook("filter", Point::Input, PRIORITY_FILTER, Verdict::Drop), rules)
}

/// What leaves the network: nothing but what egress names.
fn forward_chain(egress: &[Ipv4Net]) -> Chain {
    let out = || Rule::new().comes_in_by(BRIDGE).leaves_by(UPLINK);
    let mut rules = Vec::new();
    if !egress.is_empty() {
        rules.push(Rule::new().established_or_related().accept());
        let (narrow, wide): (Vec<&Ipv4Net>, Vec<&Ipv4Net>) =
            egress.iter().partition(|range| LINK_LOCAL.contains(*range));
        rules.extend(narrow.into_iter().map(|range| out().towards(*range).accept()));
        rules.push(out().towards(LINK_LOCAL).prohibit());
        rules.extend(wide.into_iter().map(|range| out().towards(*range).accept()));
        rules.push(out().transport(TCP).reset());
        rules.push(out().prohibit());
    }
    chain("forward", hook("filter", Point::Forward, PRIORITY_FILTER, Verdict::Drop), rules)
}

/// The table on the host for the network whose own end of the link has `address`: its traffic
/// leaves under the host's addresses, and nobody begins a connection towards it.
pub(super) fn host_table(table: &str, link: &str, address: Ipv4Addr) -> Table {
    let nat = source_nat_chain(vec![Rule::new().from(address).masquerade()]);
    let hook = hook("filter", Point::Forward, PRIORITY_FILTER, Verdict::Accept);
    let rules = vec![
        Rule::new().leaves_by(link).unrelated().drop(),
        Rule::new().comes_in_by(link).from(address).accept(),
        Rule::new().comes_in_by(link).drop(),
    ];
    Table {
        family: Family::Ip,
        name: table.to_owned(),
        sets: Vec::new(),
        chains: vec![nat, chain("forward", hook, rules)],
    }
}

/// The table that stands while Kiln has turned the host's forwarding on: between the interfaces
/// that were there before, packets still don't pass.
pub(super) fn forwarding_table<'a>(interfaces: impl Iterator<Item = &'a str>) -> Table {
    let mut before = set(BEFORE, vec![Field::Interface], None);
    before.elements = interfaces
        .filter(|interface| !interface.starts_with(HOST_PREFIX))
        .map(|interface| (name(interface), Vec::new()))
        .collect();
    let rule = Rule::new().interface_in(META_IN, BEFORE).interface_in(META_OUT, BEFORE).drop();
    let hook = hook("filter", Point::Forward, PRIORITY_FILTER, Verdict::Accept);
    Table {
        family: Family::Ip,
        name: FORWARDING_TABLE.to_owned(),
        sets: vec![before],
        chains: vec![chain("forward", hook, vec![rule])],
    }
}

/// The destinations that a network's forward chain lets out, read back from its rules.
pub(super) fn egress_of(tables: &[Table]) -> Vec<Ipv4Net> {
    let forward = tables
        .iter()
        .filter(|table| table.family == Family::Ip && table.name == TABLE)
        .flat_map(|table| &table.chains)
        .filter(|chain| chain.name == "forward");
    let everything = Ipv4Net::default();
    let mut found: Vec<Ipv4Net> = forward
        .flat_map(|chain| &chain.rules)
        .filter_map(|rule| {
            let out = Rule::new().comes_in_by(BRIDGE).leaves_by(UPLINK);
            if *rule == out.clone().accept() {
                return Some(everything);
            }
            let range = rule.destination_range()?;
            (*rule == out.towards(range).accept()).then_some(range)
        })
        .collect();
    found.sort();
    found
}
