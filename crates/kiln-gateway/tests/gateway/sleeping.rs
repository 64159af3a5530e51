//! Servers that have no instance while nobody asks for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_gateway::control::{Event, Watch};
use kiln_model::handling::Limits;
use kiln_model::quantity::Millis;
use kiln_model::route::{EndpointRoute, Protocol};

use crate::backend::{Backend, Manner};
use crate::client::{Http1, get};
use crate::load::repeat;
use crate::world::{World, component, endpoint, eventually, table};

fn sleeping(protocol: Protocol, backends: &[&Backend]) -> EndpointRoute {
    let backends = backends.iter().map(|backend| backend.route.clone()).collect();
    EndpointRoute { sleeps: true, ..endpoint("web", 0, protocol, backends) }
}

fn put(world: &World, route: EndpointRoute) -> SocketAddr {
    world.gateway.set_table(table(vec![route], vec![])).unwrap().bound[0].address
}

/// Waits until the gateway tells that a server is asked for.
fn await_asked(watch: &mut Watch) {
    let asked = Event::Asked { stack: "shop".parse().unwrap(), component: component("server.web") };
    eventually(Duration::from_secs(5), "the server is asked for", || {
        watch.next(Duration::from_millis(100)).unwrap().as_ref() == Some(&asked)
    });
}

#[test]
fn what_comes_for_a_server_that_sleeps_wakes_it_and_is_served() {
    let Some(world) = World::start("what_comes_for_a_server_that_sleeps") else { return };
    let network = world.network("front-1");
    let address = put(&world, sleeping(Protocol::Http, &[]));
    let mut watch = world.gateway.watch().unwrap();
    let asked: Vec<_> =
        (0..3).map(|_| std::thread::spawn(move || get(address, "/").unwrap())).collect();
    await_asked(&mut watch);
    let traffic = || world.gateway.traffic().unwrap().servers[0].clone();
    eventually(Duration::from_secs(5), "all wait", || traffic().waiting == 3);
    assert_eq!((traffic().arrived, traffic().refused), (3, 0));
    let instance = Backend::http(&network, "web-1");
    put(&world, sleeping(Protocol::Http, &[&instance]));
    for asked in asked {
        assert_eq!(asked.join().unwrap().text(), "web-1");
    }
    assert_eq!((traffic().arrived, traffic().waiting), (3, 0));
    // Connections are held as requests are.
    let bytes = Backend::start(&network, "web-2", "127.0.0.1:0", Manner::Bytes);
    let address = put(&world, sleeping(Protocol::Tcp, &[]));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"hi").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    await_asked(&mut watch);
    put(&world, sleeping(Protocol::Tcp, &[&bytes]));
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "web-2\nhi");
}

#[test]
fn falling_asleep_and_waking_under_load_fail_no_request() {
    let Some(world) = World::start("falling_asleep_and_waking") else { return };
    let network = world.network("front-1");
    let instance = Backend::http(&network, "web-1");
    let address = put(&world, sleeping(Protocol::Http, &[&instance]));
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Http1::connect(address).unwrap();
            repeat(&stop, "a request", move || match client.get("/")?.status {
                200 => Ok(()),
                status => Err(std::io::Error::other(format!("status {status}"))),
            })
        })
        .collect();
    for _ in 0..100 {
        put(&world, sleeping(Protocol::Http, &[]));
        std::thread::sleep(Duration::from_millis(3));
        put(&world, sleeping(Protocol::Http, &[&instance]));
        std::thread::sleep(Duration::from_millis(3));
    }
    stop.store(true, Ordering::SeqCst);
    for load in loads {
        assert!(load.join().unwrap().unwrap() > 0);
    }
}

#[test]
fn a_hold_ends_at_its_bound() {
    let Some(world) = World::start("a_hold_ends_at_its_bound") else { return };
    let mut route = sleeping(Protocol::Http, &[]);
    route.handling.limits = Limits { hold: Some(Millis(300)), ..Limits::default() };
    let address = put(&world, route);
    let answer = get(address, "/").unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.text(), "no instance is ready\n");
    assert_eq!(world.gateway.traffic().unwrap().servers[0].refused, 1);
}
