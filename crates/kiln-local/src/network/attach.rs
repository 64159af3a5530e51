//! Instances on their networks.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use ipnet::Ipv4Net;
use kiln_netns::Namespace;

use super::error::{About, Error};
use super::name::{BRIDGE, INSTANCE, TABLE, mac, port_mac, port_name};
use super::netlink::{Batch, Protocol, Refused, Socket};
use super::nft::{Family, SetName, Transaction};
use super::rtnl::address::Scope;
use super::rtnl::{address, link, neighbour, route};
use super::rules::{SOURCES, source_key};
use super::sysctl;

const SOURCES_SET: SetName = (Family::Bridge, TABLE, SOURCES);

/// An instance's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachSpec {
    /// The instance's id.
    pub instance: String,
    /// Its address, in the upper half of the network's range.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub prefix_bits: u8,
    /// The network's first address.
    pub gateway: Ipv4Addr,
}

impl AttachSpec {
    fn check(&self) -> Result<(), Error> {
        let cidr = Ipv4Net::new(self.address, self.prefix_bits.min(32))
            .expect("a prefix of at most 32 bits")
            .trunc();
        let stable = super::stable(cidr);
        if stable.contains(&self.address) || self.address == cidr.broadcast() {
            let instance = self.instance.clone();
            return Err(Error::Address { instance, address: self.address, cidr });
        }
        Ok(())
    }
}

/// Gives the instance whose namespace is `instance` its `eth0` on `network`: up, with its address
/// and the default route, isolated from the other instances and bound to its own addresses. The
/// instance's loopback is set up, too.
///
/// What was done is undone on failure. All of it goes with the instance's namespace.
pub fn attach(network: &Namespace, instance: &Namespace, spec: &AttachSpec) -> Result<(), Error> {
    spec.check()?;
    let subject = &spec.instance;
    let (mut outside, mut filter) = Socket::both_in(network).about(subject)?;
    let mut inside = instance
        .enter(|| {
            sysctl::write_all(subject, sysctl::INSTANCE.iter().copied())?;
            Socket::open(Protocol::Route).about(subject)
        })
        .about(subject)??;
    let done = connect(&mut outside, &mut filter, instance, spec).and_then(|[port, bridge]| {
        configure(&mut inside, spec)?;
        link::settle(&mut outside, port)?;
        // It carries nothing before its first port does.
        link::settle(&mut outside, bridge)
    });
    if let Err(source) = done {
        // Nothing to be done about a second failure; the first one is what is reported.
        let mut batch = Batch::default();
        link::delete(&mut batch, &port_name(&spec.instance));
        let _ = outside.execute(&batch);
        return Err(Error::Kernel { subject: subject.clone(), source });
    }
    Ok(())
}

/// The side of the network. Returns the indices of the port and of the bridge.
fn connect(
    route: &mut Socket,
    filter: &mut Socket,
    instance: &Namespace,
    spec: &AttachSpec,
) -> Result<[u32; 2], Refused> {
    let bridge = interface(route, BRIDGE)?;
    // It stays when the instance goes: it says nothing but what this address's hardware address
    // is, and to delete it would cost a grace period of the kernel.
    let source = source_key(mac(spec.address), spec.address);
    Transaction::new().add_elements(SOURCES_SET, &[(&source, &[])]).commit(filter)?;
    let port = port_name(&spec.instance);
    let near = link::End { name: &port, mac: port_mac(spec.address) };
    let far = link::End { name: INSTANCE, mac: mac(spec.address) };
    // In this order whoever measures meanwhile sees nothing that does not belong there: an idle
    // interface, then a labelled port that is down, then one that is closed and up.
    let mut batch = Batch::default();
    link::add_veth(&mut batch, near, far, instance.as_fd());
    link::set_alias(&mut batch, &port, &spec.instance);
    link::join(&mut batch, &port, bridge);
    route.execute(&batch)?;
    let index = interface(route, &port)?;
    let mut batch = Batch::default();
    neighbour::add(&mut batch, index, mac(spec.address));
    link::close_port(&mut batch, &port);
    route.execute(&batch)?;
    Ok([index, bridge])
}

/// The side of the instance.
fn configure(route: &mut Socket, spec: &AttachSpec) -> Result<(), Refused> {
    let index = interface(route, INSTANCE)?;
    let mut batch = Batch::default();
    link::set_up(&mut batch, link::LOOPBACK);
    link::set_up(&mut batch, index);
    address::add(&mut batch, index, spec.address, spec.prefix_bits, Scope::Global);
    route::add_default(&mut batch, index, spec.gateway);
    route.execute(&batch)
}

/// Cuts an instance off its network: nothing that it sends gets past its port any more. The port
/// itself goes with the instance's namespace. To do so twice, or when the port is gone, is no
/// error.
pub fn detach(network: &Namespace, spec: &AttachSpec) -> Result<(), Error> {
    let subject = &spec.instance;
    let mut route = Socket::open_in(network, Protocol::Route).about(subject)?;
    let Some(port) = route.interface(&port_name(&spec.instance)) else { return Ok(()) };
    let mut batch = Batch::default();
    neighbour::delete(&mut batch, port, mac(spec.address));
    unless_absent(route.execute(&batch)).about(subject)
}

fn interface(route: &Socket, name: &str) -> Result<u32, Refused> {
    route
        .interface(name)
        .ok_or_else(|| Refused::new("find the interface", rustix::io::Errno::NODEV))
}

/// Takes it for done when there was nothing to be deleted.
pub(super) fn unless_absent(answer: Result<(), Refused>) -> Result<(), Refused> {
    match answer {
        Err(refused) if refused.is_absent() => Ok(()),
        answer => answer,
    }
}
