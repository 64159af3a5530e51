//! Stable addresses: who is led to the gateway, and who is refused.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kiln_local::network::{Service, set_services};

use crate::support::{
    Ending, FIRST, ONE, OTHER, Root, SOON, STABLE, Teller, ask, instance, refusal, spec,
};

fn service(teller: &Teller, clients: &[std::net::Ipv4Addr]) -> Service {
    Service { address: STABLE, port: teller.address.port(), clients: clients.to_vec() }
}

#[test]
fn an_allowed_client_reaches_the_gateway_at_any_port() {
    let name = "an_allowed_client_reaches_the_gateway_at_any_port";
    let Some(root) = Root::new(name) else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    let gateway = Teller::new(&network, FIRST, "gateway");
    set_services(&network, &[service(&gateway, &[ONE])]).unwrap();
    for port in [80, 5432] {
        let asked = SocketAddrV4::new(STABLE, port);
        assert_eq!(ask(&one, asked), Ok(format!("gateway {asked}")));
    }
}

#[test]
fn others_are_refused_at_once() {
    let Some(root) = Root::new("others_are_refused_at_once") else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    let other = instance(&network, "other-1", OTHER);
    let gateway = Teller::new(&network, FIRST, "gateway");
    set_services(&network, &[service(&gateway, &[ONE])]).unwrap();
    let asked = SocketAddrV4::new(STABLE, 80);
    let elsewhere = SocketAddrV4::new("10.60.0.11".parse().unwrap(), 80);
    for (client, to) in [(&other, asked), (&one, elsewhere), (&one, gateway.address)] {
        // What is dropped is sent again after a second. Of several attempts one is not held up by
        // what else the machine does.
        let at_once = (0..3).any(|_| {
            let (kind, took) = refusal(client, to, SOON);
            assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "{to}");
            took < Duration::from_millis(900)
        });
        assert!(at_once, "{to}");
    }
    // A datagram is answered with a prohibition.
    let client = other.udp_bound(SocketAddrV4::new(OTHER, 0)).unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.connect(asked).unwrap();
    client.send(b"x").unwrap();
    let error = client.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    // And who was allowed no longer is, without them.
    set_services(&network, &[]).unwrap();
    assert_eq!(refusal(&one, asked, SOON).0, Some(ErrorKind::ConnectionRefused));
}

#[test]
fn a_hundred_swaps_under_traffic_fail_no_connection() {
    let name = "a_hundred_swaps_under_traffic_fail_no_connection";
    let Some(root) = Root::new(name) else { return };
    let network = root.network(&spec("front-1"));
    let gateways = [Teller::new(&network, FIRST, "blue"), Teller::new(&network, FIRST, "green")];
    let clients = [ONE, OTHER].map(|address| instance(&network, &address.to_string(), address));
    set_services(&network, &[service(&gateways[0], &[ONE, OTHER])]).unwrap();
    let end = AtomicBool::new(false);
    let made = [AtomicU32::new(0), AtomicU32::new(0)];
    let asked = SocketAddrV4::new(STABLE, 80);
    let mut swap_time = Duration::ZERO;
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads = clients.each_ref().map(|client| {
            scope.spawn(|| {
                let mut failed = Vec::new();
                while !end.load(Ordering::Relaxed) {
                    match ask(client, asked) {
                        Ok(said) if said.starts_with("blue") => &made[0],
                        Ok(_) => &made[1],
                        Err(error) => {
                            failed.push(error);
                            continue;
                        }
                    }
                    .fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        });
        let ending = Ending(&end);
        for turn in 1..=100 {
            std::thread::sleep(Duration::from_millis(5));
            let start = Instant::now();
            set_services(&network, &[service(&gateways[turn % 2], &[ONE, OTHER])]).unwrap();
            swap_time += start.elapsed();
        }
        drop(ending);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let made = made.map(AtomicU32::into_inner);
    println!("100 swaps, {:?} each; {made:?} connections", swap_time / 100);
    assert_eq!(failed, Vec::<String>::new());
    assert!(made.iter().all(|made| *made > 20), "{made:?}");
}

#[test]
fn many_services_are_set_at_once_and_read_back() {
    let name = "many_services_are_set_at_once_and_read_back";
    let Some(root) = Root::new(name) else { return };
    let network = root.network(&spec("front-1"));
    let clients: Vec<_> = (130..250).map(|host| [10, 60, 0, host].into()).collect();
    let services: Vec<Service> = (2..62)
        .map(|host| Service {
            address: [10, 60, 0, host].into(),
            port: 20_000 + u16::from(host),
            clients: clients.clone(),
        })
        .collect();
    let start = Instant::now();
    set_services(&network, &services).unwrap();
    println!("{} entries set in {:?}", services.len() * clients.len(), start.elapsed());
    assert_eq!(root.networks.observe().unwrap()[0].services, services);
}
