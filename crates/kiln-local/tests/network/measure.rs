//! What is changed behind Kiln's back is found, and named.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_local::network::{BRIDGE, Difference, NetworkSpec, Service, detach, set_services};

use crate::support::{Ending, FIRST, ONE, Root, STABLE, instance, place, spec};

#[test]
fn a_whole_network_has_no_differences() {
    let Some(root) = Root::new("a_whole_network_has_no_differences") else { return };
    let mut spec = spec("front-1");
    let network = root.network(&spec);
    let _one = instance(&network, "one-1", ONE);
    let services = [Service { address: STABLE, port: 4000, clients: vec![ONE] }];
    set_services(&network, &services).unwrap();
    let found = root.networks.observe().unwrap().remove(0);
    assert_eq!(found.differences(&spec), []);
    assert_eq!(found.id, spec.id);
    assert_eq!(found.label.as_deref(), Some("network.front"));
    assert_eq!(found.cidr, Some(spec.cidr));
    assert_eq!(found.services, services);
    // Of another range, it is another network.
    spec.cidr = "10.61.0.0/24".parse().unwrap();
    let differences = found.differences(&spec);
    let address = "10.61.0.1/24".parse().unwrap();
    assert!(differences.contains(&Difference::AddressMissing { address }), "{differences:?}");
}

/// Runs `ip` and `bridge`, which the tests use to tamper, in the network's namespace.
fn tamper(network: &kiln_netns::Namespace, commands: &[&str]) -> bool {
    commands.iter().all(|command| {
        let mut words = command.split(' ');
        let status = network
            .enter(|| std::process::Command::new(words.next().unwrap()).args(words).status())
            .unwrap();
        status.is_ok_and(|status| status.success())
    })
}

/// What is found after the commands, as text.
fn found_after(commands: &[&str]) -> Option<Vec<String>> {
    let test = "what_is_changed_is_found";
    let root = Root::new(test)?;
    let network = root.network(&spec("front-1"));
    let _one = instance(&network, "one-1", ONE);
    if !tamper(&network, commands) {
        println!("skipped: {test}: cannot run {commands:?} (is iproute2 installed?)");
        return None;
    }
    let found = root.networks.observe().unwrap().remove(0);
    Some(found.differences(&spec("front-1")).iter().map(ToString::to_string).collect())
}

#[test]
fn what_is_changed_is_found() {
    let port = kiln_local::network::port_name("one-1");
    let open = format!("bridge link set dev {port} isolated off");
    let learn = format!("bridge link set dev {port} learning on");
    let spoof = format!("bridge fdb add 02:00:00:00:00:01 dev {port} master static");
    let address = format!("ip address del 10.60.0.1/24 dev {BRIDGE}");
    let more = format!("ip address add 10.99.0.1/24 dev {BRIDGE}");
    let down = format!("ip link set {BRIDGE} down");
    let route = format!("ip route add 192.0.2.0/24 dev {BRIDGE}");
    let join = format!("ip link set spy master {BRIDGE}");
    let cases: &[(&[&str], &str)] = &[
        (&[&open], "is not closed"),
        (&[&learn], "is not closed"),
        (&[&spoof], "has a foreign hardware address"),
        (&[&address], "address 10.60.0.1/24 is missing"),
        (&[&more], "foreign address 10.99.0.1/24"),
        (&[&down], "interface kiln0: expected one that is up, found one that is down"),
        (&[&route], "foreign route to 192.0.2.0/24"),
        (
            &["ip link add spy type veth peer name spy2", "ip link set spy up", &join],
            "foreign port spy",
        ),
        (
            &["ip link add spy type veth peer name spy2", "ip link set spy up"],
            "foreign interface spy",
        ),
        (&["ip link del kiln0"], "interface kiln0: expected one that is up, found none"),
        (&["sysctl -qw net.ipv4.ip_forward=1"], "net.ipv4.ip_forward: expected 0, found 1"),
    ];
    for (commands, expected) in cases {
        let Some(found) = found_after(commands) else { continue };
        assert!(found.iter().any(|text| text.contains(expected)), "{commands:?}: {found:#?}");
    }
}

#[test]
fn a_listener_is_no_difference() {
    let Some(root) = Root::new("a_listener_is_no_difference") else { return };
    let network = root.network(&spec("front-1"));
    let _resolver = network.udp_bound(SocketAddrV4::new(FIRST, 53)).unwrap();
    let found = root.networks.observe().unwrap().remove(0);
    assert_eq!(found.differences(&spec("front-1")), []);
}

#[test]
fn nothing_false_is_found_while_instances_come_and_go() {
    let name = "nothing_false_is_found_while_instances_come_and_go";
    let Some(root) = Root::new(name) else { return };
    let spec = spec("front-1");
    let network = root.network(&spec);
    let end = AtomicBool::new(false);
    let (changes, looks) = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut changes = 0;
            while !end.load(Ordering::Relaxed) {
                let name = format!("web-{changes}");
                let namespace = instance(&network, &name, ONE);
                if changes % 2 == 0 {
                    // As a killed one does: the namespace goes first.
                    drop(namespace);
                }
                detach(&network, &place(&name, ONE)).unwrap();
                changes += 1;
            }
            changes
        });
        let networks = scope.spawn(|| {
            let mut number = 0;
            while !end.load(Ordering::Relaxed) {
                number += 1;
                let spec = NetworkSpec { id: format!("back-{number}"), ..spec.clone() };
                root.networks.create(&spec).unwrap();
                root.networks.destroy(&spec.id).unwrap();
            }
        });
        let ending = Ending(&end);
        let start = Instant::now();
        let (mut looks, mut wrong) = (0, Vec::new());
        // Some time and some looks, however slow the machine is.
        let enough = |looks: u32| looks > 20 || start.elapsed() > Duration::from_secs(120);
        while start.elapsed() < Duration::from_secs(2) || !enough(looks) {
            for found in root.networks.observe().unwrap() {
                let spec = NetworkSpec { id: found.id.clone(), ..spec.clone() };
                if found.label.is_some() {
                    wrong.extend(found.differences(&spec));
                }
            }
            looks += 1;
        }
        drop(ending);
        networks.join().unwrap();
        assert_eq!(wrong, []);
        (changes.join().unwrap(), looks)
    });
    println!("{changes} instances came and went during {looks} looks");
    assert!(changes > 5 && looks > 20);
}
