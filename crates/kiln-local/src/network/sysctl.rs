//! Kernel settings of a network's and of an instance's namespace.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::error::Error;

/// A setting and its value; the setting is a path below `/proc/sys/net`.
pub(super) type Setting<'a> = (&'a str, &'a str);

/// What holds in every network's namespace. A setting that the kernel does not have is left out.
pub(super) const NETWORK: &[Setting<'_>] = &[
    // There is no IPv6 in a network, so none to filter.
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    // A source address must be reached by the interface that a packet came in by.
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    // Nobody tells anybody other ways.
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
    // Questions about instances come from the network's first address.
    ("ipv4/conf/all/arp_announce", "2"),
    // Frames that the bridge handles are the bridge table's business.
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
    // The gateway makes one connection to an instance per client's, all from one address.
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv4/ip_local_port_range", "16384\t65535"),
];

/// Whether a network passes packets on; only with egress.
pub(super) const FORWARD: &str = "ipv4/ip_forward";

/// What holds in an instance's namespace before its interface is there.
pub(super) const INSTANCE: &[Setting<'_>] = &[
    ("ipv6/conf/default/disable_ipv6", "1"),
    // No port is privileged in a namespace of one's own, and instances have no capabilities.
    ("ipv4/ip_unprivileged_port_start", "0"),
];

/// Whether an interface has no IPv6.
pub(super) fn disable_ipv6(interface: &str) -> String {
    format!("ipv6/conf/{interface}/disable_ipv6")
}

/// Writes a setting of the calling thread's namespace.
pub(super) fn write(setting: &str, value: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path(setting));
    match file.and_then(|mut file| file.write_all(value.as_bytes())) {
        // This kernel has no such feature, so nothing to be set.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

/// Writes settings of the calling thread's namespace, which is `subject`'s.
pub(super) fn write_all(subject: &str, settings: &[Setting<'_>]) -> Result<(), Error> {
    settings.iter().try_for_each(|(setting, value)| {
        write(setting, value).map_err(|source| Error::Setting {
            network: subject.to_owned(),
            setting: format!("net.{}", setting.replace('/', ".")),
            value: (*value).to_owned(),
            source,
        })
    })
}

/// A setting of the calling thread's namespace; none where the kernel has no such setting.
pub(super) fn read(setting: &str) -> Option<String> {
    std::fs::read_to_string(path(setting)).ok().map(|text| text.trim_end().to_owned())
}

fn path(setting: &str) -> String {
    format!("/proc/sys/net/{setting}")
}
