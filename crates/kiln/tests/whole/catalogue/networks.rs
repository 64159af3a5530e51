//! What is done to the networks of instances, and to the network that they are in.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kiln_netns::Namespace;
use rustix::process::Signal;

use super::nft;
use super::range::{Losses, Range, Victim};
use crate::load::Load;
use crate::site::{eventually, site_or_skip};

/// Runs `ip` in a namespace.
fn ip(namespace: &Path, line: &str) {
    let namespace = Namespace::open(namespace).unwrap();
    let output = run_ip(&namespace, line);
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn run_ip(namespace: &Namespace, line: &str) -> Output {
    let arguments: Vec<&str> = line.split(' ').collect();
    namespace.enter(|| Command::new("ip").args(&arguments).output().unwrap()).unwrap()
}

/// The namespace of an instance's network.
fn of(victim: &Victim) -> std::path::PathBuf {
    format!("/proc/{}/ns/net", victim.pid).into()
}

fn set(namespace: &Path, setting: &str, value: &str) {
    let write = || fs::write(format!("/proc/sys/net/{setting}"), value);
    Namespace::open(namespace).unwrap().enter(write).unwrap().unwrap();
}

#[test]
fn what_is_done_to_an_instances_network_is_found_and_answered() {
    let site = site_or_skip!("what_is_done_to_an_instances_network_is_found_and_answered");
    let mut range = Range::new(site);
    range.row("an address is added to an instance", Losses::None, |_, victim| {
        ip(&of(victim), "address add 10.61.0.77/24 dev eth0");
    });
    range.row("a route is added to an instance", Losses::None, |_, victim| {
        ip(&of(victim), "route add 10.99.0.0/24 via 10.61.0.1");
    });
    range.row("an interface is added to an instance", Losses::None, |_, victim| {
        ip(&of(victim), "link add spy0 type veth peer name spy1");
        ip(&of(victim), "link set spy0 up");
    });
    range.row("an instance is given rules", Losses::None, |_, victim| {
        nft::add_table(&Namespace::open(of(victim)).unwrap(), "spy");
    });
    range.row("a setting of an instance is changed", Losses::None, |_, victim| {
        set(&of(victim), "ipv4/ip_unprivileged_port_start", "1024");
    });
    range.row("the default route of an instance is lost", Losses::InFlight, |_, victim| {
        ip(&of(victim), "route del default");
    });
    range.row("the veth of an instance is dropped", Losses::InFlight, |_, victim| {
        ip(&of(victim), "link del eth0");
    });
}

#[test]
fn what_is_done_to_a_network_is_found_and_answered() {
    let site = site_or_skip!("what_is_done_to_a_network_is_found_and_answered");
    let mut range = Range::new(site);
    range.row("a foreign interface is put on the bridge", Losses::None, |range, _| {
        let network = Namespace::open(range.network()).unwrap();
        run_ip(&network, "link add spy0 type veth peer name spy1");
        run_ip(&network, "link set spy0 master kiln0 up");
    });
    range.row("addresses flood a network", Losses::None, |range, _| {
        // It is replaced in the midst of them; what it was is still there.
        let network = Namespace::open(range.network()).unwrap();
        for host in 2..60 {
            run_ip(&network, &format!("address add 10.77.0.{host}/32 dev kiln0"));
        }
    });
    range.row("a route is added to a network", Losses::None, |range, _| {
        ip(&range.network(), "route add 10.99.0.0/24 dev kiln0");
    });
    range.row("a network is given rules", Losses::None, |range, _| {
        nft::add_table(&Namespace::open(range.network()).unwrap(), "spy");
    });
    range.row("the rules of a network are put in another order", Losses::None, |range, _| {
        assert!(nft::reorder(&Namespace::open(range.network()).unwrap()), "too few rules");
    });
    range.row("the rules of a network are flushed", Losses::None, |range, _| {
        nft::flush(&Namespace::open(range.network()).unwrap());
    });
    range.row("a setting of a network is changed", Losses::None, |range, _| {
        set(&range.network(), "ipv4/ip_forward", "1");
    });
}

#[test]
fn the_gateway_is_started_again_with_its_table() {
    let site = site_or_skip!("the_gateway_is_started_again_with_its_table");
    let range = Range::new(site);
    let load = Load::start(range.site.address(), 4);
    range.site.signal("gateway", Signal::KILL);
    eventually("it serves again", || {
        crate::site::get(range.site.address(), "/").is_ok_and(|(status, _)| status == 200)
    });
    // What came while nobody listened was refused.
    let (answered, _) = load.end();
    assert!(answered > 0);
}
