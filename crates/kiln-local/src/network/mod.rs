//! Networks: each is a network namespace of its own.
//!
//! A network instance is a namespace that is pinned by a mount at `ROOT/run/net/ID`, with a bridge
//! ([`BRIDGE`]) that holds the network's first address, and packet filter rules that let nothing
//! through by themselves. An instance hangs on the bridge by a veth pair ([`attach()`]). The ports
//! of the bridge are isolated from each other, and a frame gets past its port only with the
//! hardware address that is bound to the port, and the address that belongs to that. So whatever goes from one instance to another goes through
//! the gateway: the lower half of the range, where the stable addresses of components are, is
//! delivered to the namespace itself, and [`set_services`] says which client reaches which stable
//! address, and at which port of the gateway. All else is refused.
//!
//! Nothing of a network stands in the host's namespace, so ranges may be equal, save for one with
//! egress: that has one link and one table of rules there.
//!
//! Everything here is synchronous, and runs no program. What is there is read back from the kernel
//! by [`Networks::observe`].

mod attach;
mod differ;
mod egress;
mod error;
mod forwarding;
pub(crate) mod interior;
mod loopback;
mod measure;
mod name;
mod netlink;
mod networks;
mod nft;
mod pin;
mod rtnl;
mod rules;
mod services;
mod sysctl;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

pub use attach::{AttachSpec, attach, detach};
pub use differ::Difference;
pub use error::Error;
pub use loopback::set_loopback_up;
pub use measure::{ObservedNetwork, Port};
pub use name::{BRIDGE, port_name};
pub(crate) use netlink::Listener;
pub use netlink::Refused;
pub use networks::{NetworkInfo, Networks};
pub use services::{Service, set_services};

/// What a network instance is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// The instance's id, unique in the root: lower-case letters, digits and `-`, at most 80.
    pub id: String,
    /// The range, /1 to /29; its host part is zero. The first address is Kiln's, the lower half
    /// belongs to components and the upper one to instances.
    pub cidr: Ipv4Net,
    /// Destinations outside that instances may reach; none where empty. `169.254.0.0/16`, where
    /// clouds answer with credentials, is reachable only by a range within it.
    pub egress: Vec<Ipv4Net>,
    /// Whatever the caller wants to find again with the network; at most 150 bytes of text.
    pub label: String,
}

impl NetworkSpec {
    /// The first address, where the resolver answers and which is the instances' default route.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.cidr)
    }

    /// The lower half of the range, where the stable addresses are.
    pub fn stable(&self) -> Ipv4Net {
        stable(self.cidr)
    }
}

fn gateway(cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(cidr.network()).wrapping_add(1))
}

fn stable(cidr: Ipv4Net) -> Ipv4Net {
    let prefix = cidr.prefix_len().saturating_add(1).min(32);
    Ipv4Net::new(cidr.network(), prefix).unwrap_or(cidr)
}
