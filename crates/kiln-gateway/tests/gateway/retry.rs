//! What is sent once more to another instance, and how overload is shared.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_model::handling::Limits;
use kiln_model::quantity::Millis;
use kiln_model::route::Protocol;

use crate::backend::{Backend, Manner};
use crate::client::{Http1, get};
use crate::world::{World, endpoint, table};

/// Asks once on a connection of its own; the status.
fn ask(address: std::net::SocketAddr, head: &str) -> u16 {
    let mut client = Http1::connect(address).unwrap();
    client.send(head.as_bytes()).unwrap();
    client.read().unwrap().status
}

#[test]
fn what_can_be_repeated_is_sent_once_more_to_another_instance() {
    let Some(world) = World::start("what_can_be_repeated") else { return };
    let network = world.network("front-1");
    let good = Backend::http(&network, "web-1");
    let bad = Backend::start(&network, "web-2", "127.0.0.1:0", Manner::Dropping);
    let both = vec![good.route.clone(), bad.route.clone()];
    let route = endpoint("web", 0, Protocol::Http, both);
    let applied = world.gateway.set_table(table(vec![route], vec![])).unwrap();
    let address = applied.bound[0].address;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for _ in 0..8 {
            let head = format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let mut client = Http1::connect(address).unwrap();
            client.send(head.as_bytes()).unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(client.stream(), &mut line).unwrap();
            assert!(line.starts_with("HTTP/1.1 200"), "{method}: {line}");
        }
    }
    // What may have been done is not done twice: who drew the bad one is told.
    let alone = endpoint("web", 0, Protocol::Http, vec![bad.route.clone()]);
    let applied = world.gateway.set_table(table(vec![alone], vec![])).unwrap();
    let address = applied.bound[0].address;
    assert_eq!(ask(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"), 502);
    let route = endpoint("web", 0, Protocol::Http, vec![good.route.clone(), bad.route.clone()]);
    let address = world.gateway.set_table(table(vec![route], vec![])).unwrap().bound[0].address;
    let mut told = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !told.contains(&502) && Instant::now() < deadline {
        told.push(ask(address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"));
    }
    assert!(told.contains(&502), "{told:?}");
    assert!(told.iter().all(|status| [200, 502].contains(status)), "{told:?}");
}

#[test]
fn overload_costs_all_clients_alike_and_is_over_when_it_is_over() {
    const CLIENTS: usize = 16;
    let Some(world) = World::start("overload_costs_all") else { return };
    let network = world.network("front-1");
    let instance = Backend::http(&network, "web-1");
    let mut route = endpoint("web", 0, Protocol::Http, vec![instance.route.clone()]);
    route.handling.limits = Limits {
        concurrency: Some(2),
        queue: Some(4),
        wait: Some(Millis::seconds(1)),
        ..Limits::default()
    };
    let applied = world.gateway.set_table(table(vec![route], vec![])).unwrap();
    let address = applied.bound[0].address;
    let stop = AtomicBool::new(false);
    let client = || {
        let (mut served, mut refused) = (0_u32, 0_u32);
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let answer = get(address, "/slow/20").unwrap();
            if answer.status == 200 {
                served += 1;
            } else {
                assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(2), "told late: {took:?}");
                refused += 1;
            }
            // Everybody pauses, and never in step: who asks again at once would have the place
            // that he has just left, and who is always late would never have one.
            let pause = 5 + u64::from(begun.elapsed().subsec_micros() % 20);
            std::thread::sleep(Duration::from_millis(pause));
        }
        (served, refused)
    };
    let found: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        std::thread::sleep(Duration::from_secs(4));
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let served: u32 = found.iter().map(|(served, _)| served).sum();
    assert!(served > 50 && found.iter().any(|(_, refused)| *refused > 0), "{found:?}");
    let mean = served / u32::try_from(CLIENTS).unwrap();
    assert!(found.iter().all(|(served, _)| *served >= mean / 4), "unevenly: {found:?}");
    // Over at once: nobody is refused, and nothing is left waiting.
    assert!((0..20).all(|_| get(address, "/slow/20").unwrap().status == 200));
    let counters = world.gateway.status().unwrap().endpoints[0].counters.clone();
    assert_eq!((counters.in_flight, counters.waiting), (0, 0));
}
