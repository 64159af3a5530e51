//! Networks: a range of addresses that instances share.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// All of it: a network has no policy.
    pub identity: NetworkIdentity,
}

/// What a network is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkIdentity {
    /// Its range; /16 to /28, the host part zero.
    pub cidr: Ipv4Net,
    /// Destinations outside that its instances may reach; none where empty. In order, no
    /// range twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Ipv4Net>,
}

impl NetworkIdentity {
    /// The first address, which is Kiln's own: the resolver answers there.
    pub fn resolver(&self) -> Ipv4Addr {
        self.host(1)
    }

    /// The address `offset` behind the range's first.
    pub fn host(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()).wrapping_add(offset))
    }

    /// How many addresses the range has.
    pub fn size(&self) -> u32 {
        1 << (32 - u32::from(self.cidr.prefix_len().clamp(1, 32)))
    }
}
