//! The way out of a network: one link to the host, and one table of rules there.
//!
//! The network's addresses never appear on the host: what leaves carries the address of the
//! network's own end of the link, and leaves the host under the host's address.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use ipnet::Ipv4Net;
use kiln_netns::Namespace;

use super::attach::unless_absent;
use super::error::{About, Error};
use super::forwarding::{self, HostLock};
use super::name::{UPLINK, host_link, host_table, mac, number, port_mac};
use super::netlink::{Batch, Protocol, Socket};
use super::nft::{Family, Transaction};
use super::rtnl::address::Scope;
use super::rtnl::route::Route;
use super::rtnl::{address, link, route};
use super::{NetworkSpec, rules, sysctl};

/// Links get ranges of two addresses out of this one. Link-local addresses belong to nobody
/// outside a link; this part is clear of what clouds put at its end.
const LINKS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 64, 0), 18);
const LINK_BITS: u8 = 31;

/// Refuses a network whose addresses mean something else to the host.
pub(super) fn check_overlap(host: &Namespace, spec: &NetworkSpec) -> Result<(), Error> {
    let mut socket = Socket::open_in(host, Protocol::Route).about(&spec.id)?;
    let routes = route::routes(&mut socket).about(&spec.id)?;
    let Some(route) = routes.iter().find(|route| overlaps(route, spec.cidr)) else {
        return Ok(());
    };
    let links = link::links(&mut socket).about(&spec.id)?;
    let name = links.iter().find(|link| Some(link.index) == route.out).map(|link| &*link.name);
    let route = format!("{} dev {}", route.destination, name.unwrap_or("none"));
    Err(Error::Overlap { network: spec.id.clone(), cidr: spec.cidr, route })
}

/// Whether a route that is not a default route (nor half of one) leads into the range.
fn overlaps(route: &Route, range: Ipv4Net) -> bool {
    route.destination.prefix_len() > 1
        && (route.destination.contains(&range) || range.contains(&route.destination))
}

/// Makes the link and the rules. Says whether the host's forwarding was turned on for it.
pub(super) fn open(
    host: &Namespace,
    network: &Namespace,
    root: &str,
    spec: &NetworkSpec,
) -> Result<bool, Error> {
    let lock = HostLock::take(host)?;
    let mut outside = Socket::open_in(host, Protocol::Route).about(&spec.id)?;
    let range = free_link(&mut outside, root, spec)?;
    let (theirs, ours) = ends(range);
    let name = host_link(root, &spec.id);

    let mut filter = Socket::open_in(host, Protocol::Netfilter).about(&spec.id)?;
    let table = rules::host_table(&host_table(root, &spec.id), &name, ours);
    Transaction::new().add_table(&table).commit(&mut filter).about(&spec.id)?;

    let near = link::End { name: &name, mac: port_mac(theirs) };
    let far = link::End { name: UPLINK, mac: mac(ours) };
    let mut batch = Batch::default();
    link::add_veth(&mut batch, near, far, network.as_fd());
    link::set_alias(&mut batch, &name, &format!("{root} {}", spec.id));
    outside.execute(&batch).about(&spec.id)?;
    host.enter(|| sysctl::write_all(&spec.id, [(&*sysctl::disable_ipv6(&name), "1")]))
        .about(&spec.id)??;
    add_address(&mut outside, &name, theirs, None).about(&spec.id)?;

    let mut inside = Socket::open_in(network, Protocol::Route).about(&spec.id)?;
    add_address(&mut inside, UPLINK, ours, Some(theirs)).about(&spec.id)?;
    let index = outside.interface(&name).unwrap_or_default();
    link::settle(&mut outside, index).about(&spec.id)?;
    forwarding::turn_on(host, &lock)
}

fn add_address(
    socket: &mut Socket,
    name: &str,
    own: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
) -> Result<(), super::Refused> {
    let index = socket.interface(name).unwrap_or_default();
    let mut batch = Batch::default();
    link::set_up(&mut batch, index);
    // The network's own end speaks for its instances beyond the link.
    let scope = if gateway.is_some() { Scope::Global } else { Scope::Link };
    address::add(&mut batch, index, own, LINK_BITS, scope);
    if let Some(gateway) = gateway {
        route::add_default(&mut batch, index, gateway);
    }
    socket.execute(&batch)
}

/// Takes away whatever stands on the host for a network.
pub(super) fn close(host: &Namespace, root: &str, network: &str) -> Result<(), Error> {
    let mut filter = Socket::open_in(host, Protocol::Netfilter).about(network)?;
    let name = host_table(root, network);
    let link_name = host_link(root, network);
    let mut route = Socket::open_in(host, Protocol::Route).about(network)?;
    let names = super::nft::list::names(&mut filter).about(network)?;
    if !names.contains(&(Family::Ip, name.clone())) && route.interface(&link_name).is_none() {
        return Ok(());
    }
    let lock = HostLock::take(host)?;
    let mut batch = Batch::default();
    link::delete(&mut batch, &link_name);
    unless_absent(route.execute(&batch)).about(network)?;
    let delete = Transaction::new().delete_table(Family::Ip, &name);
    unless_absent(delete.commit(&mut filter)).about(network)?;
    forwarding::restore(host, &lock)
}

/// The host's end and the network's own end.
fn ends(range: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    let first = u32::from(range.network());
    (first.into(), (first + 1).into())
}

/// A range for the link that no route of the host leads into. Where to begin to look follows
/// from the ids, so a network mostly gets the same one again.
fn free_link(socket: &mut Socket, root: &str, spec: &NetworkSpec) -> Result<Ipv4Net, Error> {
    let taken: Vec<Ipv4Net> = route::routes(socket)
        .about(&spec.id)?
        .into_iter()
        .map(|route| route.destination)
        .filter(|destination| LINKS.contains(destination))
        .chain([spec.cidr])
        .collect();
    let count = 1_u32 << (LINK_BITS - LINKS.prefix_len());
    let begin = number(root, &spec.id);
    let base = u32::from(LINKS.network());
    (0..count)
        .map(|step| base + 2 * (begin.wrapping_add(step) % count))
        .filter_map(|first| Ipv4Net::new(first.into(), LINK_BITS).ok())
        .find(|range| !taken.iter().any(|it| it.contains(range) || range.contains(it)))
        .ok_or_else(|| Error::NoLink { network: spec.id.clone(), range: LINKS })
}
