//! Kernel settings of a network's and of an instance's namespace.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::error::Error;

/// A setting and its value; the setting is a path below `/proc/sys/net`.
pub(super) type Setting<'a> = (&'a str, &'a str);

/// What holds in every network's namespace, but for forwarding. A setting that the kernel does not
/// have is left out. A new namespace begins with what the machine's first one has at the time, so
/// what matters is written also where it is the kernel's own default.
const NETWORK: &[Setting<'_>] = &[
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
    // Stable addresses are routed here and stand on no interface; they are answered for, and no
    // others.
    ("ipv4/conf/all/arp_ignore", "0"),
    ("ipv4/conf/default/arp_ignore", "0"),
    ("ipv4/conf/all/proxy_arp", "0"),
    ("ipv4/conf/default/proxy_arp", "0"),
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

/// Whether a namespace passes packets on.
pub(super) const FORWARD: &str = "ipv4/ip_forward";

/// All that holds in a network's namespace, in the order in which it is written: forwarding,
/// which only a network with egress does, comes first, as the kernel lets others follow from it.
pub(super) fn network(egress: bool) -> impl Iterator<Item = Setting<'static>> {
    let forward = if egress { "1" } else { "0" };
    std::iter::once((FORWARD, forward)).chain(NETWORK.iter().copied())
}

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
pub(super) fn write_all<'a>(
    subject: &str,
    settings: impl IntoIterator<Item = Setting<'a>>,
) -> Result<(), Error> {
    settings.into_iter().try_for_each(|(setting, value)| {
        write(setting, value).map_err(|source| Error::Setting {
            network: subject.to_owned(),
            setting: format!("net.{}", setting.replace('/', ".")),
            value: value.to_owned(),
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

#[cfg(test)]
mod tests {
    use kiln_netns::Namespace;

    use super::{network, read, write, write_all};

    #[test]
    fn nothing_is_kept_of_what_a_namespace_begins_with() {
        for egress in [false, true] {
            let Ok(namespace) = Namespace::create() else {
                println!("skipped: nothing_is_kept_of_what_a_namespace_begins_with: needs root");
                return;
            };
            let differing = namespace.enter(|| {
                for (setting, value) in network(egress) {
                    // As a router has it, or whoever else has changed it.
                    let other = match value {
                        "0" => "1",
                        "1" | "2" => "0",
                        _ => "32768\t60999",
                    };
                    write(setting, other).unwrap();
                }
                write_all("front-1", network(egress)).unwrap();
                // A kernel without the setting has nothing to be read.
                let kept = |(setting, value): (_, &str)| {
                    read(setting).filter(|found| found != value).map(|found| (setting, found))
                };
                network(egress).filter_map(kept).collect::<Vec<_>>()
            });
            assert_eq!(differing.unwrap(), []);
        }
    }
}
