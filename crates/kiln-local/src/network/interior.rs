//! The network as an instance has it: its one interface, and nothing besides.

use ipnet::Ipv4Net;
use kiln_netns::Namespace;

use super::attach::AttachSpec;
use super::differ::{Difference, belongs, interface, tables};
use super::error::{About, Error};
use super::name::{INSTANCE, mac};
use super::netlink::Socket;
use super::nft::{self, Table};
use super::rtnl::address::Address;
use super::rtnl::link::Link;
use super::rtnl::route::Route;
use super::rtnl::{address, link, route};
use super::sysctl;

/// What is in an instance's namespace.
#[derive(Debug)]
struct State {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    tables: Vec<Table>,
    /// Settings in the order of [`sysctl::INSTANCE`].
    settings: Vec<Option<String>>,
}

/// In what the namespace of an instance differs from how [`attach`](super::attach()) leaves it.
pub(crate) fn differences(
    instance: &Namespace,
    spec: &AttachSpec,
) -> Result<Vec<Difference>, Error> {
    let subject = &spec.instance;
    let (mut route, mut filter) = Socket::both_in(instance).about(subject)?;
    let read = || sysctl::INSTANCE.iter().map(|(setting, _)| sysctl::read(setting)).collect();
    let state = State {
        settings: instance.enter(read).about(subject)?,
        links: link::links(&mut route).about(subject)?,
        addresses: address::addresses(&mut route).about(subject)?,
        routes: route::routes(&mut route).about(subject)?,
        // Most have none, which is soon known.
        tables: if nft::list::names(&mut filter).about(subject)?.is_empty() {
            Vec::new()
        } else {
            nft::list(&mut filter).about(subject)?
        },
    };
    Ok(compare(&state, spec))
}

fn compare(state: &State, spec: &AttachSpec) -> Vec<Difference> {
    let mut found = Vec::new();
    links(state, spec, &mut found);
    addresses(state, spec, &mut found);
    routes(state, spec, &mut found);
    tables(&[], &state.tables, &mut found);
    for ((setting, expected), measured) in sysctl::INSTANCE.iter().zip(&state.settings) {
        if let Some(measured) = measured.as_ref().filter(|measured| measured != expected) {
            found.push(Difference::Setting {
                setting: format!("net.{}", setting.replace('/', ".")),
                expected: (*expected).to_owned(),
                found: measured.clone(),
            });
        }
    }
    found
}

fn links(state: &State, spec: &AttachSpec, found: &mut Vec<Difference>) {
    let named = |name: &str| state.links.iter().find(|link| link.name == name);
    let own = mac(spec.address);
    let fits = |link: &Link| link.kind.as_deref() == Some("veth") && link.mac == Some(own);
    interface(INSTANCE, named(INSTANCE), fits, found);
    interface("lo", named("lo"), |_| true, found);
    // Some kernels put idle fallback devices of tunnels into every namespace.
    let foreign = state.links.iter().filter(|link| link.up || link.master.is_some());
    for link in foreign.filter(|link| link.name != "lo" && link.name != INSTANCE) {
        found.push(Difference::ForeignInterface { name: link.name.clone() });
    }
}

fn range(address: &Address) -> Ipv4Net {
    Ipv4Net::new(address.ip, address.prefix).unwrap_or_default()
}

fn addresses(state: &State, spec: &AttachSpec, found: &mut Vec<Difference>) {
    let own = Ipv4Net::new(spec.address, spec.prefix_bits.min(32)).unwrap_or_default();
    let name = |address: &Address| {
        let link = state.links.iter().find(|link| link.index == address.index);
        link.map(|link| &*link.name).unwrap_or_default()
    };
    let is_own = |it: &&Address| name(it) == INSTANCE && range(it) == own;
    if !state.addresses.iter().any(|it| is_own(&it)) {
        found.push(Difference::AddressMissing { address: own });
    }
    let loopback = |it: &&Address| name(it) == "lo" && it.ip.is_loopback();
    for address in state.addresses.iter().filter(|it| !is_own(it) && !loopback(it)) {
        found.push(Difference::ForeignAddress { address: range(address) });
    }
}

fn routes(state: &State, spec: &AttachSpec, found: &mut Vec<Difference>) {
    let default = |it: &Route| {
        let out = state.links.iter().find(|link| Some(link.index) == it.out);
        it.destination == Ipv4Net::default()
            && !it.local
            && it.gateway == Some(spec.gateway)
            && out.is_some_and(|link| link.name == INSTANCE)
    };
    if state.routes.iter().filter(|it| default(it)).count() != 1 {
        found.push(Difference::RouteMissing { destination: Ipv4Net::default() });
    }
    let by_address = |it: &Route| state.addresses.iter().any(|address| belongs(it, range(address)));
    for route in state.routes.iter().filter(|it| !default(it) && !by_address(it)) {
        found.push(Difference::ForeignRoute { destination: route.destination });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn spec() -> AttachSpec {
        AttachSpec {
            instance: "web-1".to_owned(),
            address: Ipv4Addr::new(10, 60, 0, 130),
            prefix_bits: 24,
            gateway: Ipv4Addr::new(10, 60, 0, 1),
        }
    }

    fn state() -> State {
        let link = |index, name: &str, kind: Option<&str>, mac| Link {
            index,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            mac,
            up: true,
            ..Link::default()
        };
        let address = |index, ip, prefix| Address { index, ip, prefix, label: String::new() };
        let route = |destination: &str, table, gateway, local| Route {
            destination: destination.parse().unwrap(),
            table,
            out: Some(2),
            gateway,
            local,
        };
        State {
            links: vec![
                link(1, "lo", None, None),
                link(2, "eth0", Some("veth"), Some(mac(spec().address))),
            ],
            addresses: vec![address(1, Ipv4Addr::LOCALHOST, 8), address(2, spec().address, 24)],
            routes: vec![
                route("0.0.0.0/0", 254, Some(spec().gateway), false),
                route("10.60.0.0/24", 254, None, false),
                route("10.60.0.130/32", route::LOCAL, None, true),
            ],
            tables: Vec::new(),
            settings: sysctl::INSTANCE.iter().map(|(_, value)| Some((*value).to_owned())).collect(),
        }
    }

    fn found(tamper: impl FnOnce(&mut State)) -> String {
        let mut state = state();
        tamper(&mut state);
        let lines: Vec<String> = compare(&state, &spec()).iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn whatever_is_not_as_it_was_attached_is_named() {
        assert_eq!(found(|_| ()), "");
        let gone = found(|state| drop(state.links.pop()));
        assert!(gone.contains("interface eth0: expected one that is up, found none"), "{gone}");
        assert!(found(|state| state.links[1].up = false).contains("one that is down"));
        let more = found(|state| {
            let dummy = Link { index: 3, name: "spy0".to_owned(), up: true, ..Link::default() };
            state.links.push(dummy);
        });
        assert_eq!(more, "foreign interface spy0");
        let address = found(|state| {
            let mut other = state.addresses[1].clone();
            other.ip = Ipv4Addr::new(10, 60, 0, 99);
            state.addresses.push(other);
        });
        assert_eq!(address, "foreign address 10.60.0.99/24");
        let missing = found(|state| drop(state.addresses.pop()));
        assert!(missing.contains("address 10.60.0.130/24 is missing"), "{missing}");
        let led = found(|state| state.routes[0].gateway = Some(Ipv4Addr::new(10, 60, 0, 99)));
        assert!(led.contains("foreign route to 0.0.0.0/0"), "{led}");
        let twice = found(|state| state.routes.push(state.routes[0].clone()));
        assert_eq!(twice, "the route to 0.0.0.0/0 is missing");
        let setting = found(|state| state.settings[1] = Some("1024".to_owned()));
        assert!(
            setting.contains("ip_unprivileged_port_start: expected 0, found 1024"),
            "{setting}"
        );
    }

    #[test]
    fn what_every_namespace_may_have_is_no_difference() {
        let idle = found(|state| {
            let idle = Link { index: 9, name: "tunl0".to_owned(), ..Link::default() };
            state.links.push(idle);
        });
        assert_eq!(idle, "");
    }
}
