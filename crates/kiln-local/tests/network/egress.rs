//! The way out, over a namespace that stands for the host to one that stands for the outside.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use kiln_local::network::{Error, NetworkSpec};
use kiln_netns::Namespace;

use crate::support::{CIDR, ONE, Root, Teller, ask, instance, refusal, spec, unanswered};

const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Where clouds hand out credentials.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

fn with_egress(id: &str, egress: &[&str]) -> NetworkSpec {
    let egress = egress.iter().map(|range| range.parse().unwrap()).collect();
    NetworkSpec { egress, ..spec(id) }
}

/// A host that is linked to an outside; needs `ip`, as only a test does.
fn outside_of(root: &Root, test: &str) -> Option<Namespace> {
    let outside = Namespace::create().unwrap();
    let at_host = [
        "ip link set lo up".to_owned(),
        "ip link add lan type veth peer name wan".to_owned(),
        "ip link set lan up".to_owned(),
        format!("ip address add {HOST}/24 dev lan"),
        format!("ip route add {METADATA} via {OUTSIDE}"),
    ];
    let made = run(&root.host, &at_host)
        && move_link(&root.host, "wan", &outside)
        && run(
            &outside,
            &[
                "ip link set lo up".to_owned(),
                "ip link set wan up".to_owned(),
                format!("ip address add {OUTSIDE}/24 dev wan"),
                format!("ip address add {METADATA}/32 dev lo"),
            ],
        );
    if !made {
        println!("skipped: {test}: cannot set up an outside (is iproute2 installed?)");
    }
    made.then_some(outside)
}

fn run(namespace: &Namespace, commands: &[String]) -> bool {
    commands.iter().all(|command| {
        let mut words = command.split(' ');
        let status = namespace
            .enter(|| std::process::Command::new(words.next().unwrap()).args(words).status())
            .unwrap();
        status.is_ok_and(|status| status.success())
    })
}

/// Moves an interface; `ip` names a namespace by a process in it.
fn move_link(from: &Namespace, link: &str, to: &Namespace) -> bool {
    let Ok(mut holder) =
        to.enter(|| std::process::Command::new("sleep").arg("60").spawn()).unwrap()
    else {
        return false;
    };
    let moved = run(from, &[format!("ip link set {link} netns {}", holder.id())]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    moved
}

fn links(namespace: &Namespace) -> usize {
    let table = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    table.unwrap().unwrap().lines().count() - 2
}

fn forwarding(namespace: &Namespace) -> String {
    let setting = namespace.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
    setting.unwrap().unwrap().trim().to_owned()
}

#[test]
fn only_what_egress_names_is_reached() {
    let test = "only_what_egress_names_is_reached";
    let Some(root) = Root::new(test) else { return };
    let Some(outside) = outside_of(&root, test) else { return };
    let teller = Teller::new(&outside, Ipv4Addr::UNSPECIFIED, "outside");
    let there = SocketAddrV4::new(OUTSIDE, teller.address.port());
    let metadata = SocketAddrV4::new(METADATA, teller.address.port());

    let open = root.network(&with_egress("open-1", &["0.0.0.0/0"]));
    let narrow = root.network(&with_egress("narrow-1", &["203.0.113.0/24", "169.254.169.254/32"]));
    let closed = root.network(&spec("closed-1"));
    let [open, narrow, closed] = [&open, &narrow, &closed].map(|it| instance(it, "one-1", ONE));

    assert_eq!(ask(&open, there), Ok("outside direct".to_owned()));
    assert!(refusal(&open, metadata, crate::support::SOON).0.is_some());
    assert!(refusal(&narrow, there, crate::support::SOON).0.is_some());
    assert_eq!(ask(&narrow, metadata), Ok("outside direct".to_owned()));
    assert!(unanswered(&closed, there));
    for network in root.networks.observe().unwrap() {
        let spec = match network.id.as_str() {
            "open-1" => with_egress("open-1", &["0.0.0.0/0"]),
            "narrow-1" => with_egress("narrow-1", &["169.254.169.254/32", "203.0.113.0/24"]),
            _ => spec("closed-1"),
        };
        assert_eq!(network.egress, spec.egress);
    }
}

#[test]
fn nobody_begins_a_connection_towards_a_network() {
    let test = "nobody_begins_a_connection_towards_a_network";
    let Some(root) = Root::new(test) else { return };
    let Some(outside) = outside_of(&root, test) else { return };
    let network = root.network(&with_egress("open-1", &["0.0.0.0/0"]));
    let server = instance(&network, "web-1", ONE);
    let teller = Teller::new(&server, ONE, "inside");
    assert!(run(&outside, &[format!("ip route add {CIDR} via {HOST}")]));
    assert!(run(&outside, &[format!("ip route add 169.254.64.0/18 via {HOST}")]));
    assert!(refusal(&outside, teller.address, crate::support::NEVER).0.is_some());
    let uplink = network.enter(|| {
        let output = std::process::Command::new("ip")
            .args(["-4", "-o", "address", "show", "dev", "uplink"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    let address = uplink.unwrap().split_whitespace().nth(3).unwrap().to_owned();
    let address: Ipv4Addr = address.split('/').next().unwrap().parse().unwrap();
    let there = SocketAddrV4::new(address, teller.address.port());
    assert!(refusal(&outside, there, crate::support::NEVER).0.is_some());
    assert!(refusal(&root.host, there, crate::support::NEVER).0.is_some());
}

/// Whether a neighbour of the host reaches the outside through it.
fn neighbour_reaches_outside(root: &Root, outside: &Namespace, test: &str) -> Option<bool> {
    let neighbour = Namespace::create().unwrap();
    let network = "192.0.2";
    let made = run(
        &root.host,
        &[
            "ip link add side type veth peer name peer".to_owned(),
            "ip link set side up".to_owned(),
            format!("ip address add {network}.1/24 dev side"),
        ],
    ) && run(outside, &[format!("ip route add {network}.0/24 via {HOST}")])
        && move_link(&root.host, "peer", &neighbour)
        && run(
            &neighbour,
            &[
                "ip link set peer up".to_owned(),
                format!("ip address add {network}.2/24 dev peer"),
                format!("ip route add default via {network}.1"),
            ],
        );
    if !made {
        println!("skipped: {test}: cannot set up a neighbour (is iproute2 installed?)");
        return None;
    }
    let teller = Teller::new(outside, Ipv4Addr::UNSPECIFIED, "outside");
    let reached = || {
        let there = SocketAddrV4::new(OUTSIDE, teller.address.port());
        // Long enough for a first packet that is lost while the links come up.
        refusal(&neighbour, there, Duration::from_millis(1500)).0.is_none()
    };
    let before = reached();
    drop(root.network(&with_egress("open-1", &["0.0.0.0/0"])));
    assert_eq!(reached(), before);
    root.networks.destroy("open-1").unwrap();
    assert_eq!(reached(), before);
    Some(before)
}

#[test]
fn the_host_becomes_no_router_for_its_neighbours() {
    let test = "the_host_becomes_no_router_for_its_neighbours";
    for (was_on, expected) in [("0", false), ("1", true)] {
        let Some(root) = Root::new(test) else { return };
        let Some(outside) = outside_of(&root, test) else { return };
        let setting = root.host.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", was_on));
        setting.unwrap().unwrap();
        let reached = neighbour_reaches_outside(&root, &outside, test);
        assert!(reached.is_none_or(|reached| reached == expected), "was {was_on}: {reached:?}");
    }
}

#[test]
fn the_host_is_as_before_when_the_last_one_is_gone() {
    let test = "the_host_is_as_before_when_the_last_one_is_gone";
    let Some(root) = Root::new(test) else { return };
    let neighbour = Root::on(root.host.clone());
    let before = (links(&root.host), forwarding(&root.host));
    assert_eq!(before.1, "0");
    let egress = with_egress("open-1", &["0.0.0.0/0"]);
    assert!(root.networks.create(&egress).unwrap().turned_forwarding_on);
    assert!(!neighbour.networks.create(&egress).unwrap().turned_forwarding_on);
    assert_eq!((links(&root.host), forwarding(&root.host)), (before.0 + 2, "1".to_owned()));
    for root in [&root, &neighbour] {
        let found = root.networks.observe().unwrap().remove(0);
        assert_eq!(found.differences(&egress), []);
    }
    root.networks.destroy("open-1").unwrap();
    // The other root's still needs it.
    assert_eq!((links(&root.host), forwarding(&root.host)), (before.0 + 1, "1".to_owned()));
    neighbour.networks.destroy("open-1").unwrap();
    assert_eq!((links(&root.host), forwarding(&root.host)), before);
}

#[test]
fn forwarding_that_was_on_stays_on() {
    let Some(root) = Root::new("forwarding_that_was_on_stays_on") else { return };
    let on = root.host.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"));
    on.unwrap().unwrap();
    let egress = with_egress("open-1", &["0.0.0.0/0"]);
    assert!(!root.networks.create(&egress).unwrap().turned_forwarding_on);
    root.networks.destroy("open-1").unwrap();
    assert_eq!(forwarding(&root.host), "1");
}

#[test]
fn what_is_lost_on_the_host_is_found() {
    let test = "what_is_lost_on_the_host_is_found";
    let Some(root) = Root::new(test) else { return };
    let egress = with_egress("open-1", &["0.0.0.0/0"]);
    drop(root.network(&egress));
    let link = root.host.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let link = link.unwrap().unwrap();
    let mut link = link.lines().filter_map(|line| line.trim().split(':').next());
    let link = link.rfind(|name| name.starts_with("kiln")).unwrap().to_owned();
    if !run(&root.host, &[format!("ip link del {link}")]) {
        println!("skipped: {test}: cannot run ip (is iproute2 installed?)");
        return;
    }
    let found = root.networks.observe().unwrap().remove(0).differences(&egress);
    assert!(found.iter().any(|it| it.to_string().contains(&link)), "{found:#?}");
    // It is destroyed as well as a whole one.
    root.networks.destroy("open-1").unwrap();
    assert_eq!(forwarding(&root.host), "0");
}

#[test]
fn a_range_that_the_host_uses_is_refused_and_named() {
    let test = "a_range_that_the_host_uses_is_refused_and_named";
    let Some(root) = Root::new(test) else { return };
    let Some(_outside) = outside_of(&root, test) else { return };
    let egress = &["0.0.0.0/0"];
    for cidr in ["198.51.100.0/24", "198.51.100.128/25", "198.51.0.0/16"] {
        let spec = NetworkSpec { cidr: cidr.parse().unwrap(), ..with_egress("open-1", egress) };
        let error = root.networks.create(&spec).unwrap_err();
        assert!(matches!(error, Error::Overlap { .. }), "{error}");
        assert!(error.to_string().contains("198.51.100.0/24 dev lan"), "{error}");
        assert_eq!(root.mounts(), 0);
        // Without egress, nothing of it meets the host.
        root.networks.create(&NetworkSpec { egress: Vec::new(), ..spec }).unwrap();
        root.networks.destroy("open-1").unwrap();
    }
}
