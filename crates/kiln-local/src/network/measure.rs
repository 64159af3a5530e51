//! Network instances as the kernel has them.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use kiln_netns::Namespace;

use super::differ::{self, Difference};
use super::error::{About, Error};
use super::name::{BRIDGE, TABLE, host_link, host_table, port_name};
use super::netlink::Socket;
use super::nft::{self, Family, Table};
use super::rtnl::address::Address;
use super::rtnl::link::Link;
use super::rtnl::route::Route;
use super::rtnl::{Mac, address, link, neighbour, route};
use super::rules::{self, SOURCES};
use super::services::{Service, services_of};
use super::{NetworkSpec, sysctl};

/// A network instance that exists, or of which something is left.
#[derive(Debug, Clone)]
pub struct ObservedNetwork {
    /// Its id.
    pub id: String,
    /// Where it is pinned.
    pub path: PathBuf,
    /// The label that it was made with; none while it is being made, or where it is half made.
    pub label: Option<String>,
    /// The range of its bridge.
    pub cidr: Option<Ipv4Net>,
    /// The destinations that its rules let out, in order.
    pub egress: Vec<Ipv4Net>,
    /// The ports of its bridge, in the order of their names.
    pub ports: Vec<Port>,
    /// The services that are reached in it, in order.
    pub services: Vec<Service>,
    /// All that was measured; none where nothing is pinned at the path.
    pub(super) state: Option<State>,
    pub(super) root: String,
}

/// A port of a network's bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the network's namespace.
    pub name: String,
    /// The instance that it was made for; none for a port that Kiln has not made.
    pub instance: Option<String>,
    /// The address that may be sent from there; none for one that is cut off.
    pub address: Option<Ipv4Addr>,
}

/// What is in a network's namespace, and what belongs to it on the host.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    /// The bridge's ports, by index, and the hardware addresses bound to them.
    pub(super) bound: Vec<(u32, Mac)>,
    pub(super) tables: Vec<Table>,
    /// Settings in the order of [`sysctl::network`].
    pub(super) settings: Vec<Option<String>>,
    pub(super) host_link: Option<Link>,
    pub(super) host_table: Option<Table>,
}

impl ObservedNetwork {
    /// In what the network differs from `spec`, of which it is to be an instance. Ports and
    /// services are not part of a specification; whether they are whole in themselves is.
    #[must_use]
    pub fn differences(&self, spec: &NetworkSpec) -> Vec<Difference> {
        match &self.state {
            Some(state) => differ::differences(self, state, spec),
            None => vec![Difference::NotPinned],
        }
    }
}

/// Measures the network that is pinned at `path`; none when it has gone meanwhile.
pub(super) fn measure(
    host: &Namespace,
    root: &str,
    path: PathBuf,
) -> Result<Option<ObservedNetwork>, Error> {
    let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut network = ObservedNetwork {
        id,
        path,
        label: None,
        cidr: None,
        egress: Vec::new(),
        ports: Vec::new(),
        services: Vec::new(),
        state: None,
        root: root.to_owned(),
    };
    let namespace = match Namespace::open(&network.path) {
        Ok(namespace) => namespace,
        Err(kiln_netns::Error::NotANamespace { .. }) => return Ok(Some(network)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).about(&network.id),
    };
    let state = read(host, &namespace, root, &network.id)?;
    network.interpret(&state);
    network.state = Some(state);
    Ok(Some(network))
}

fn read(host: &Namespace, network: &Namespace, root: &str, id: &str) -> Result<State, Error> {
    let (mut route, mut filter) = Socket::both_in(network).about(id)?;
    // First of all: with its label, it is whole.
    let links = link::links(&mut route).about(id)?;
    let settings = sysctl::network(false).map(|(setting, _)| sysctl::read(setting));
    let settings = network.enter(|| settings.collect()).about(id)?;
    let (mut host_route, mut host_filter) = Socket::both_in(host).about(id)?;
    let (link_name, table_name) = (host_link(root, id), host_table(root, id));
    let names = nft::list::names(&mut host_filter).about(id)?;
    let host_table = if names.iter().any(|(_, name)| *name == table_name) {
        let tables = nft::list(&mut host_filter).about(id)?;
        tables.into_iter().find(|table| table.name == table_name)
    } else {
        None
    };
    let host_link = if host_route.interface(&link_name).is_some() {
        let links = link::links(&mut host_route).about(id)?;
        links.into_iter().find(|link| link.name == link_name)
    } else {
        None
    };
    Ok(State {
        links,
        addresses: address::addresses(&mut route).about(id)?,
        routes: route::routes(&mut route).about(id)?,
        bound: neighbour::bound(&mut route).about(id)?,
        tables: nft::list(&mut filter).about(id)?,
        settings,
        host_link,
        host_table,
    })
}

impl State {
    pub(super) fn bridge(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.name == BRIDGE)
    }

    pub(super) fn table(&self, family: Family) -> Option<&Table> {
        self.tables.iter().find(|table| table.family == family && table.name == TABLE)
    }

    /// The ports of the bridge.
    pub(super) fn ports(&self) -> impl Iterator<Item = &Link> {
        let bridge = self.bridge().map(|link| link.index);
        self.links.iter().filter(move |link| link.master.is_some() && link.master == bridge)
    }

    /// The addresses that may be sent from, and the hardware address of each.
    pub(super) fn sources(&self) -> Vec<(Mac, Ipv4Addr)> {
        let sets = self.table(Family::Bridge).into_iter().flat_map(|table| &table.sets);
        sets.filter(|set| set.name == SOURCES)
            .flat_map(|set| set.elements.keys())
            .filter_map(|key| rules::parse_source_key(key))
            .collect()
    }

    /// The address that may be sent from at a port.
    fn address_at(&self, port: u32) -> Option<Ipv4Addr> {
        let bound = self.bound.iter().find(|(index, _)| *index == port)?.1;
        self.sources().into_iter().find(|(mac, _)| *mac == bound).map(|(_, address)| address)
    }
}

impl ObservedNetwork {
    fn interpret(&mut self, state: &State) {
        if let Some(bridge) = state.bridge() {
            let alias = bridge.alias.as_deref().unwrap_or_default();
            let prefix = format!("{} {} ", self.root, self.id);
            self.label = alias.strip_prefix(&prefix).map(str::to_owned);
            let address = state.addresses.iter().find(|address| address.index == bridge.index);
            self.cidr = address
                .and_then(|it| Ipv4Net::new(it.ip, it.prefix).ok())
                .map(|range| range.trunc());
        }
        self.egress = rules::egress_of(&state.tables);
        self.services = state.table(Family::Ip).map(services_of).unwrap_or_default();
        self.ports = state
            .ports()
            .map(|link| Port {
                name: link.name.clone(),
                instance: link.alias.clone().filter(|alias| port_name(alias) == link.name),
                address: state.address_at(link.index),
            })
            .collect();
        self.ports.sort_by(|one, other| one.name.cmp(&other.name));
    }
}
