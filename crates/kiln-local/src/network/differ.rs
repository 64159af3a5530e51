//! In what a network differs from what it is to be.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kiln_model::drift::{Aspect, Drift};

use super::measure::{ObservedNetwork, State};
use super::name::{BRIDGE, UPLINK, host_link, host_table, mac};
use super::nft::{Family, Table};
use super::rtnl::link::Link;
use super::rtnl::route;
use super::{NetworkSpec, rules, sysctl};

/// One thing that is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// There is a file and no namespace: half made, or unmounted by somebody.
    #[error("no namespace is pinned at the network's path")]
    NotPinned,
    /// An interface is missing, or down, or not what it is to be.
    #[error("interface {name}: expected {expected}, found {found}")]
    Interface {
        /// The interface's name.
        name: String,
        /// What it is to be.
        expected: &'static str,
        /// What there is.
        found: &'static str,
    },
    /// An interface that Kiln has not made.
    #[error("foreign interface {name}")]
    ForeignInterface {
        /// Its name.
        name: String,
    },
    /// A port of the bridge that Kiln has not made.
    #[error("foreign port {name} on the bridge")]
    ForeignPort {
        /// Its name.
        name: String,
    },
    /// A port of the bridge can reach other ports, or learns who is behind it.
    #[error("port {name} is not closed")]
    PortNotClosed {
        /// Its name.
        name: String,
    },
    /// A port has more than one hardware address.
    #[error("port {name} has a foreign hardware address")]
    ForeignHardware {
        /// Its name.
        name: String,
    },
    /// An address may be sent from by a hardware address that is not its own.
    #[error("{address} may be sent from by a foreign hardware address")]
    ForeignSource {
        /// The address.
        address: Ipv4Addr,
    },
    /// An address is missing.
    #[error("address {address} is missing")]
    AddressMissing {
        /// The address with its prefix.
        address: Ipv4Net,
    },
    /// An address that Kiln has not given.
    #[error("foreign address {address}")]
    ForeignAddress {
        /// The address with its prefix.
        address: Ipv4Net,
    },
    /// A route is missing.
    #[error("the route to {destination} is missing")]
    RouteMissing {
        /// Where it is to lead.
        destination: Ipv4Net,
    },
    /// A route that neither Kiln nor, by itself, the kernel has made.
    #[error("foreign route to {destination}")]
    ForeignRoute {
        /// Where it leads.
        destination: Ipv4Net,
    },
    /// A part of the packet filter rules differs.
    #[error("{place}: expected {expected}, found {found}")]
    Rules {
        /// Which table, chain, rule or set.
        place: String,
        /// What is to be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A kernel setting differs.
    #[error("{setting}: expected {expected}, found {found}")]
    Setting {
        /// The setting, as `sysctl` names it.
        setting: String,
        /// Its value to be.
        expected: String,
        /// Its value.
        found: String,
    },
}

impl Difference {
    /// What differs, as the model has it.
    pub(crate) fn drift(&self) -> Drift {
        let missing = |aspect, what: String| Drift::new(aspect, what, "none");
        let foreign =
            |aspect, what: String| Drift::new(aspect, "none that Kiln has not made", what);
        match self {
            Self::NotPinned => {
                Drift::new(Aspect::Network, "a namespace at the network's path", "none")
            }
            Self::Interface { name, expected, found } => Drift::new(
                Aspect::Interface,
                format!("{name}, {expected}"),
                format!("{name}, {found}"),
            ),
            Self::ForeignInterface { name } => foreign(Aspect::Interface, name.clone()),
            Self::ForeignPort { name } => foreign(Aspect::Interface, format!("port {name}")),
            Self::PortNotClosed { name } => {
                Drift::new(Aspect::Interface, format!("port {name}, closed"), "one that is open")
            }
            Self::ForeignHardware { name } => {
                foreign(Aspect::Interface, format!("a hardware address at port {name}"))
            }
            Self::ForeignSource { address } => {
                foreign(Aspect::Address, format!("a hardware address that may send from {address}"))
            }
            Self::AddressMissing { address } => missing(Aspect::Address, address.to_string()),
            Self::ForeignAddress { address } => foreign(Aspect::Address, address.to_string()),
            Self::RouteMissing { destination } => {
                missing(Aspect::Route, format!("a route to {destination}"))
            }
            Self::ForeignRoute { destination } => {
                foreign(Aspect::Route, format!("a route to {destination}"))
            }
            Self::Rules { place, expected, found } => {
                Drift::new(Aspect::Nftables, expected.clone(), format!("{found} in {place}"))
            }
            Self::Setting { setting, expected, found } => Drift::new(
                Aspect::Sysctl,
                format!("{setting} = {expected}"),
                format!("{setting} = {found}"),
            ),
        }
    }
}

/// Compares what was measured with what `spec` asks for.
pub(super) fn differences(
    network: &ObservedNetwork,
    state: &State,
    spec: &NetworkSpec,
) -> Vec<Difference> {
    let mut found = Vec::new();
    interfaces(state, spec, &mut found);
    ports(network, state, &mut found);
    addresses(state, spec, &mut found);
    routes(state, spec, &mut found);
    let expected = rules::network_tables(spec.cidr, &spec.egress);
    tables(&expected, &state.tables, &mut found);
    settings(state, spec, &mut found);
    host(network, state, spec, &mut found);
    found
}

pub(super) fn interface(
    name: &str,
    link: Option<&Link>,
    fits: impl Fn(&Link) -> bool,
    found: &mut Vec<Difference>,
) {
    let state = match link {
        None => "none",
        Some(link) if !link.up => "one that is down",
        Some(link) if !fits(link) => "another one of this name",
        Some(_) => return,
    };
    let name = name.to_owned();
    found.push(Difference::Interface { name, expected: "one that is up", found: state });
}

fn interfaces(state: &State, spec: &NetworkSpec, found: &mut Vec<Difference>) {
    let address = mac(spec.gateway());
    let fits = |link: &Link| link.kind.as_deref() == Some("bridge") && link.mac == Some(address);
    interface(BRIDGE, state.bridge(), fits, found);
    let uplink = state.links.iter().find(|link| link.name == UPLINK);
    if !spec.egress.is_empty() {
        interface(UPLINK, uplink, |link| link.kind.as_deref() == Some("veth"), found);
    }
    let bridge = state.bridge().map(|link| link.index);
    for link in &state.links {
        let own = link.name == "lo" || link.name == BRIDGE || link.name == UPLINK;
        // Some kernels put idle fallback devices of tunnels into every namespace.
        let idle = !link.up && link.master.is_none();
        if !own && !idle && (link.master.is_none() || link.master != bridge) {
            found.push(Difference::ForeignInterface { name: link.name.clone() });
        }
    }
}

fn ports(network: &ObservedNetwork, state: &State, found: &mut Vec<Difference>) {
    for link in state.ports() {
        // What is down passes nothing: it is just being attached.
        if link.up && !link.closed {
            found.push(Difference::PortNotClosed { name: link.name.clone() });
        }
        if state.bound.iter().filter(|(port, _)| *port == link.index).count() > 1 {
            found.push(Difference::ForeignHardware { name: link.name.clone() });
        }
    }
    for port in network.ports.iter().filter(|port| port.instance.is_none()) {
        found.push(Difference::ForeignPort { name: port.name.clone() });
    }
    for (sender, address) in state.sources() {
        if sender != mac(address) {
            found.push(Difference::ForeignSource { address });
        }
    }
}

fn addresses(state: &State, spec: &NetworkSpec, found: &mut Vec<Difference>) {
    let own = Ipv4Net::new(spec.gateway(), spec.cidr.prefix_len()).unwrap_or(spec.cidr);
    let mut missing = true;
    for address in &state.addresses {
        let name = state.links.iter().find(|link| link.index == address.index);
        let name = name.map(|link| &*link.name).unwrap_or_default();
        let address = Ipv4Net::new(address.ip, address.prefix).unwrap_or_default();
        match name {
            BRIDGE if address == own => missing = false,
            "lo" if address.addr().is_loopback() => {}
            // Which range a link has is decided when it is made.
            UPLINK if rules::LINK_LOCAL.contains(&address) && !spec.egress.is_empty() => {}
            _ => found.push(Difference::ForeignAddress { address }),
        }
    }
    if missing {
        found.push(Difference::AddressMissing { address: own });
    }
}

fn routes(state: &State, spec: &NetworkSpec, found: &mut Vec<Difference>) {
    let mut expected = BTreeSet::from([spec.stable()]);
    if !spec.egress.is_empty() {
        expected.insert(Ipv4Net::default());
    }
    for route in &state.routes {
        let stable = route.local && route.destination == spec.stable();
        let default = !route.local && route.destination == Ipv4Net::default();
        if stable || (default && !spec.egress.is_empty()) {
            expected.remove(&route.destination);
            continue;
        }
        let by_address = state.addresses.iter().any(|address| {
            Ipv4Net::new(address.ip, address.prefix).is_ok_and(|range| belongs(route, range))
        });
        if !by_address {
            found.push(Difference::ForeignRoute { destination: route.destination });
        }
    }
    found.extend(expected.into_iter().map(|destination| Difference::RouteMissing { destination }));
}

/// Whether the kernel has made the route by itself, for an address with the range.
pub(super) fn belongs(route: &route::Route, range: Ipv4Net) -> bool {
    let to = route.destination;
    let single = to.prefix_len() == 32
        && [range.addr(), range.broadcast(), range.network()].contains(&to.network());
    route.gateway.is_none() && (to == range.trunc() || (single && route.table == route::LOCAL))
}

/// Compares tables; the elements of sets, which are no part of a specification, are left out.
pub(super) fn tables(expected: &[Table], measured: &[Table], found: &mut Vec<Difference>) {
    for table in expected {
        let place = place(table);
        match measured.iter().find(|it| it.family == table.family && it.name == table.name) {
            Some(measured) => table_contents(&place, table, measured, found),
            None => found.push(rules_differ(place, "a table", "none")),
        }
    }
    for table in measured {
        if !expected.iter().any(|it| it.family == table.family && it.name == table.name) {
            found.push(rules_differ(place(table), "no table", "a foreign one"));
        }
    }
}

fn place(table: &Table) -> String {
    let family = match table.family {
        Family::Ip => "ip".to_owned(),
        Family::Bridge => "bridge".to_owned(),
        Family::Other(number) => format!("family-{number}"),
    };
    format!("table {family} {}", table.name)
}

fn rules_differ(place: String, expected: impl Display, found: impl Display) -> Difference {
    Difference::Rules { place, expected: expected.to_string(), found: found.to_string() }
}

fn table_contents(place: &str, expected: &Table, measured: &Table, found: &mut Vec<Difference>) {
    for chain in &expected.chains {
        let place = format!("{place}, chain {}", chain.name);
        let Some(other) = measured.chains.iter().find(|it| it.name == chain.name) else {
            found.push(rules_differ(place, "a chain", "none"));
            continue;
        };
        if chain.hook != other.hook {
            let found_hook = format!("{:?}", other.hook);
            found.push(rules_differ(place.clone(), format!("{:?}", chain.hook), found_hook));
        }
        for index in 0..chain.rules.len().max(other.rules.len()) {
            let (rule, other) = (chain.rules.get(index), other.rules.get(index));
            if rule != other {
                let text = |rule: Option<_>| match rule {
                    Some(rule) => format!("`{rule}`"),
                    None => "none".to_owned(),
                };
                let place = format!("{place}, rule {}", index + 1);
                found.push(rules_differ(place, text(rule), text(other)));
            }
        }
    }
    let shape = |table: &Table| -> Vec<String> {
        let chains = table.chains.iter().map(|chain| format!("chain {}", chain.name));
        let sets = table.sets.iter();
        let sets = sets.map(|set| format!("set {} {:?} {:?}", set.name, set.key, set.value));
        let mut all: Vec<String> = chains.chain(sets).collect();
        all.sort();
        all
    };
    let (expected, measured) = (shape(expected), shape(measured));
    if expected != measured {
        found.push(rules_differ(place.to_owned(), expected.join(", "), measured.join(", ")));
    }
}

fn settings(state: &State, spec: &NetworkSpec, found: &mut Vec<Difference>) {
    let expected = sysctl::network(!spec.egress.is_empty());
    for ((setting, expected), measured) in expected.zip(&state.settings) {
        // A kernel without the setting has nothing to be measured.
        if let Some(measured) = measured.as_ref().filter(|measured| *measured != expected) {
            found.push(Difference::Setting {
                setting: format!("net.{}", setting.replace('/', ".")),
                expected: expected.to_owned(),
                found: measured.clone(),
            });
        }
    }
}

/// What stands on the host: a link and a table with egress, else nothing.
fn host(network: &ObservedNetwork, state: &State, spec: &NetworkSpec, found: &mut Vec<Difference>) {
    let link = host_link(&network.root, &spec.id);
    if spec.egress.is_empty() {
        if state.host_link.is_some() {
            found.push(Difference::ForeignInterface { name: link });
        }
        tables(&[], state.host_table.as_slice(), found);
        return;
    }
    interface(&link, state.host_link.as_ref(), |it| it.kind.as_deref() == Some("veth"), found);
    let uplink = state.links.iter().find(|it| it.name == UPLINK).map(|it| it.index);
    let address = state.addresses.iter().find(|it| Some(it.index) == uplink);
    let address = address.map_or(Ipv4Addr::UNSPECIFIED, |it| it.ip);
    let table = rules::host_table(&host_table(&network.root, &spec.id), &link, address);
    tables(&[table], state.host_table.as_slice(), found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::nft::Rule;

    fn expected() -> Vec<Table> {
        rules::network_tables("10.60.0.0/24".parse().unwrap(), &[])
    }

    /// What is found when the tables are tampered with.
    fn found_after(tamper: impl FnOnce(&mut Vec<Table>)) -> String {
        let mut measured = expected();
        tamper(&mut measured);
        let mut found = Vec::new();
        tables(&expected(), &measured, &mut found);
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn changed_rules_are_named() {
        assert_eq!(found_after(|_| ()), "");
        let flushed = found_after(|tables| tables[0].chains[1].rules.clear());
        assert!(flushed.contains("chain input, rule 8: expected `meta(6)"), "{flushed}");
        let opened = found_after(|tables| {
            tables[0].chains[1].rules.insert(0, Rule::new().accept());
        });
        assert!(opened.contains("rule 1: expected `ct(0)"), "{opened}");
        assert!(opened.contains("found `accept`"), "{opened}");
        let swapped = found_after(|tables| tables[0].chains[1].rules.swap(6, 7));
        assert_eq!(swapped.lines().count(), 2, "{swapped}");
        let policy = found_after(|tables| {
            let hook = tables[0].chains[2].hook.as_mut().unwrap();
            hook.policy = crate::network::nft::Verdict::Accept;
        });
        assert!(policy.contains("chain forward: expected"), "{policy}");
    }

    #[test]
    fn missing_and_foreign_parts_are_named() {
        let gone = found_after(|tables| drop(tables.remove(1)));
        assert_eq!(gone, "table bridge kiln: expected a table, found none");
        let foreign = found_after(|tables| {
            let mut table = tables[0].clone();
            table.name = "spy".to_owned();
            tables.push(table);
        });
        assert_eq!(foreign, "table ip spy: expected no table, found a foreign one");
        let chain = found_after(|tables| drop(tables[0].chains.pop()));
        assert!(chain.contains("chain forward: expected a chain, found none"), "{chain}");
        let set = found_after(|tables| tables[0].sets[0].name.push('x'));
        assert!(set.contains("set servicesx"), "{set}");
        // What a set holds is not part of what a network is.
        let elements = found_after(|tables| {
            tables[0].sets[0].elements.insert(vec![0; 8], vec![0; 2]);
        });
        assert_eq!(elements, "");
    }
}
