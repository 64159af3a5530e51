//! Who reaches whom on a network: nobody, but the network's own services.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use kiln_netns::Namespace;

use crate::support::{
    CIDR, FIRST, NEVER, ONE, OTHER, Root, SOON, Teller, ask, instance, refusal, spec, unanswered,
};

fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

/// The first datagram that arrives.
fn receive(socket: &UdpSocket, patience: Duration) -> Option<(Vec<u8>, std::net::SocketAddr)> {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 64];
    let (length, sender) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), sender))
}

#[test]
fn instances_do_not_reach_each_other() {
    let Some(root) = Root::new("instances_do_not_reach_each_other") else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    let other = instance(&network, "other-1", OTHER);
    let teller = Teller::new(&other, OTHER, "other");
    // The gateway, which has sockets in the network's own namespace, reaches it.
    assert_eq!(ask(&network, teller.address), Ok("other direct".to_owned()));
    assert!(unanswered(&one, teller.address));
    // Not through the network's namespace either, which passes nothing on.
    let datagrams = other.udp_bound(at(OTHER, 700)).unwrap();
    one.udp_bound(at(ONE, 700)).unwrap().send_to(b"x", at(OTHER, 700)).unwrap();
    assert!(receive(&datagrams, NEVER).is_none());
}

#[test]
fn only_the_resolver_answers_at_the_first_address() {
    let Some(root) = Root::new("only_the_resolver_answers_at_the_first_address") else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    let listener = network.tcp_listener(at(FIRST, 53), 16).unwrap();
    let resolver = Teller::with(listener, "resolver");
    let other = Teller::new(&network, FIRST, "other");
    let datagrams = network.udp_bound(at(FIRST, 53)).unwrap();
    let hidden = network.udp_bound(at(FIRST, 5353)).unwrap();

    assert_eq!(ask(&one, resolver.address), Ok(format!("resolver {}", resolver.address)));
    let (kind, _) = refusal(&one, other.address, SOON);
    assert_eq!(kind, Some(ErrorKind::ConnectionRefused));
    let client = one.udp_bound(at(ONE, 0)).unwrap();
    client.send_to(b"hidden", at(FIRST, 5353)).unwrap();
    client.send_to(b"open", at(FIRST, 53)).unwrap();
    let (said, sender) = receive(&datagrams, SOON).unwrap();
    assert_eq!((said, sender.ip()), (b"open".to_vec(), ONE.into()));
    assert!(receive(&hidden, NEVER).is_none());
    // Answers come back.
    datagrams.send_to(b"answer", sender).unwrap();
    // The refusal of the hidden port may stand before it.
    assert!((0..2).any(|_| receive(&client, SOON).is_some_and(|(said, _)| said == b"answer")));
}

#[test]
fn false_sources_are_dropped() {
    let Some(root) = Root::new("false_sources_are_dropped") else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    let _other = instance(&network, "other-1", OTHER);
    let resolver = network.udp_bound(at(FIRST, 53)).unwrap();
    for address in [OTHER, FIRST, Ipv4Addr::new(10, 60, 0, 203), Ipv4Addr::new(192, 0, 2, 1)] {
        let liar = lying(&one, address);
        liar.send_to(b"false", at(FIRST, 53)).unwrap();
    }
    assert!(receive(&resolver, NEVER).is_none());
    let honest = lying(&one, ONE);
    honest.send_to(b"true", at(FIRST, 53)).unwrap();
    assert_eq!(receive(&resolver, SOON).unwrap().0, b"true");
}

/// A socket that sends under `address`, whether or not it is the namespace's.
fn lying(namespace: &Namespace, address: Ipv4Addr) -> UdpSocket {
    let socket = namespace.udp_bound(at(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    drop(socket);
    namespace
        .enter(|| {
            let socket = rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                None,
            )
            .unwrap();
            let on: libc::c_int = 1;
            // SAFETY: the kernel reads four bytes of `on`, which outlives the call.
            let answer = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_IP,
                    libc::IP_TRANSPARENT,
                    (&raw const on).cast(),
                    4,
                )
            };
            assert_eq!(answer, 0);
            rustix::net::bind(&socket, &at(address, 0)).unwrap();
            UdpSocket::from(socket)
        })
        .unwrap()
}

#[test]
fn nothing_leaves_without_egress() {
    let Some(root) = Root::new("nothing_leaves_without_egress") else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    assert!(unanswered(&one, at(Ipv4Addr::new(192, 0, 2, 1), 80)));
}

#[test]
fn equal_ranges_stand_side_by_side() {
    let Some(root) = Root::new("equal_ranges_stand_side_by_side") else { return };
    let networks = [root.network(&spec("front-1")), root.network(&spec("front-2"))];
    let servers = networks.each_ref().map(|network| instance(network, "web-1", ONE));
    let tellers = [Teller::new(&servers[0], ONE, "first"), Teller::new(&servers[1], ONE, "second")];
    assert_eq!(ask(&networks[0], tellers[0].address), Ok("first direct".to_owned()));
    assert_eq!(ask(&networks[1], tellers[1].address), Ok("second direct".to_owned()));
    // To destroy one never touches the other.
    root.networks.destroy("front-1").unwrap();
    assert_eq!(ask(&networks[1], tellers[1].address), Ok("second direct".to_owned()));
    let range = root.networks.observe().unwrap()[0].cidr.unwrap();
    assert_eq!(range.to_string(), CIDR);
}

#[test]
fn the_first_packets_arrive() {
    let Some(root) = Root::new("the_first_packets_arrive") else { return };
    let network = root.network(&spec("front-1"));
    let resolver = network.udp_bound(at(FIRST, 53)).unwrap();
    let mut slow = 0;
    for host in 150..250_u8 {
        let address = Ipv4Addr::new(10, 60, 0, host);
        let one = instance(&network, &format!("one-{host}"), address);
        let client = one.udp_bound(at(address, 0)).unwrap();
        let start = Instant::now();
        client.send_to(b"question", at(FIRST, 53)).unwrap();
        let (_, sender) = receive(&resolver, SOON).unwrap();
        resolver.send_to(b"answer", sender).unwrap();
        receive(&client, SOON).unwrap();
        // A lost packet is sent again after a second.
        slow += u32::from(start.elapsed() > Duration::from_millis(900));
    }
    // A processor that is emulated and shared holds some of them up; a network that is not ready
    // when it says so loses nearly all.
    assert!(slow <= 20, "{slow} of 100 first packets had to be sent again");
}
