//! Names and hardware addresses of what stands in the kernel.
//!
//! All follow from ids alone, so that whatever is left of a network can be found and deleted
//! without any record of it.

use std::net::Ipv4Addr;

use kiln_model::digest::Digest;

use super::rtnl::Mac;

/// The bridge of each network, in its namespace.
pub const BRIDGE: &str = "kiln0";
/// A network's own end of its link to the host.
pub(super) const UPLINK: &str = "uplink";
/// The interface of an instance.
pub(super) const INSTANCE: &str = "eth0";
/// The tables of rules in a network's namespace.
pub(super) const TABLE: &str = "kiln";
/// How the names of Kiln's interfaces and tables on the host begin.
pub(super) const HOST_PREFIX: &str = "kiln";
/// The table of rules on the host that stands while Kiln has turned forwarding on there.
pub(super) const FORWARDING_TABLE: &str = "kiln-forwarding";

/// The name of the bridge's port for an instance, in the network's namespace: 15 bytes, which is
/// as long as an interface's name may be.
pub fn port_name(instance: &str) -> String {
    format!("k{}", short(&[instance]))
}

/// The name of the host's end of a network's link.
pub(super) fn host_link(root: &str, network: &str) -> String {
    format!("{HOST_PREFIX}{}", &short(&[root, network])[..11])
}

/// The name of a network's table on the host.
pub(super) fn host_table(root: &str, network: &str) -> String {
    format!("{HOST_PREFIX}-{root}-{network}")
}

/// Fourteen hex digits that stand for `parts`.
fn short(parts: &[&str]) -> String {
    Digest::of(parts.join("\0").as_bytes()).short(14)
}

/// A number that stands for a network of a root.
pub(super) fn number(root: &str, network: &str) -> u32 {
    let digest = Digest::of([root, network].join("\0").as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The hardware address of the interface that has `address`, unique in its network.
pub(super) fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [LOCALLY_ADMINISTERED, 0x6b, a, b, c, d]
}

/// The hardware address of the port for `address`.
pub(super) fn port_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [LOCALLY_ADMINISTERED, 0x70, a, b, c, d]
}

/// First byte of an individual address that no vendor has given out.
const LOCALLY_ADMINISTERED: u8 = 0x02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        for id in ["web-4f2a", "a-very-long-component-name-of-someone-0123456789ab"] {
            assert_eq!(port_name(id).len(), 15);
            assert_eq!(host_link("0badcafe", id).len(), 15);
        }
        assert_ne!(host_link("a", "bc"), host_link("ab", "c"));
        assert_ne!(port_name("web-1"), port_name("web-2"));
    }

    #[test]
    fn hardware_addresses_are_individual_and_local() {
        let mac = mac(Ipv4Addr::new(10, 60, 0, 21));
        assert_eq!(mac[0] & 0b11, 0b10);
        assert_ne!(mac, port_mac(Ipv4Addr::new(10, 60, 0, 21)));
    }
}
