//! Instances are replaced under load and no request fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_gateway::control::{Event, Watch};
use kiln_model::name::InstanceId;
use kiln_model::route::{EndpointRoute, Protocol};

use crate::backend::{Backend, Manner};
use crate::client::{Http1, get, http2_load};
use crate::load::{Load, repeat};
use crate::world::{World, endpoint, event, table};

/// Waits until the gateway says that an instance has nothing left to do.
fn await_drained(watch: &mut Watch, instance: &InstanceId) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Some(Event::Drained { instance: drained }) =
            event(watch, Duration::from_secs(1)).unwrap()
            && drained == *instance
        {
            return;
        }
    }
    panic!("{instance} is not drained");
}

fn ok(status: u16) -> std::io::Result<()> {
    if status == 200 { Ok(()) } else { Err(std::io::Error::other(format!("status {status}"))) }
}

fn http_loads(address: SocketAddr, stop: &Arc<AtomicBool>) -> Vec<Load> {
    let mut loads = Vec::new();
    for path in ["/", "/slow/3", "/download/200000"] {
        let mut kept = Http1::connect(address).unwrap();
        loads.push(repeat(stop, "kept", move || ok(kept.get(path)?.status)));
        loads.push(repeat(stop, "fresh", move || ok(get(address, path)?.status)));
    }
    let stop = Arc::clone(stop);
    loads.push(std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(http2_load(address, || !stop.load(Ordering::SeqCst)))
    }));
    loads
}

/// A short TCP conversation, whole or not at all.
fn converse(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    if all.ends_with("\nhello") { Ok(()) } else { Err(std::io::Error::other(all)) }
}

#[test]
fn two_hundred_replacements_under_load_fail_no_request() {
    let Some(world) = World::start("two_hundred_replacements") else { return };
    let network = world.network("front-1");
    let mut watch = world.gateway.watch().unwrap();
    let mut web = vec![Backend::http(&network, "web-0"), Backend::http(&network, "web-00")];
    let mut echo = vec![Backend::bytes(&network, "echo-0")];
    let routes = |web: &[Backend], echo: &[Backend], ports: [u16; 2]| -> Vec<EndpointRoute> {
        let web = web.iter().map(|b| b.route.clone()).collect();
        let echo = echo.iter().map(|b| b.route.clone()).collect();
        vec![
            endpoint("web", ports[0], Protocol::Auto, web),
            endpoint("echo", ports[1], Protocol::Tcp, echo),
        ]
    };
    let applied = world.gateway.set_table(table(routes(&web, &echo, [0, 0]), vec![])).unwrap();
    let [http, tcp] = [applied.bound[0].address, applied.bound[1].address];
    let stop = Arc::new(AtomicBool::new(false));
    let mut loads = http_loads(http, &stop);
    loads.push(repeat(&stop, "tcp", move || converse(tcp)));
    for round in 1..=200 {
        let (backends, kind): (&mut Vec<Backend>, _) =
            if round % 4 == 0 { (&mut echo, "echo") } else { (&mut web, "web") };
        let instance = format!("{kind}-{round}");
        let new = match kind {
            "echo" => Backend::bytes(&network, &instance),
            _ => Backend::http(&network, &instance),
        };
        let old = std::mem::replace(&mut backends[0], new);
        backends.rotate_left(1);
        world.gateway.set_table(table(routes(&web, &echo, [0, 0]), vec![])).unwrap();
        await_drained(&mut watch, &old.route.instance);
        drop(old);
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, Ordering::SeqCst);
    let counts: Vec<_> = loads.into_iter().map(|load| load.join().unwrap()).collect();
    println!("requests per load: {counts:?}");
    assert!(counts.iter().all(|count| matches!(count, Ok(20..))), "{counts:?}");
}

#[test]
fn a_request_in_flight_finishes_on_the_instance_that_left() {
    let Some(world) = World::start("a_request_in_flight_finishes") else { return };
    let network = world.network("front-1");
    let mut watch = world.gateway.watch().unwrap();
    let old = Backend::http(&network, "web-1");
    let new = Backend::http(&network, "web-2");
    let with = |b: &Backend| vec![endpoint("web", 0, Protocol::Http, vec![b.route.clone()])];
    let applied = world.gateway.set_table(table(with(&old), vec![])).unwrap();
    let address = applied.bound[0].address;
    let slow = std::thread::spawn(move || {
        let mut client = Http1::connect(address).unwrap();
        let slow = client.get("/slow/400").unwrap();
        (slow, client.get("/").unwrap())
    });
    std::thread::sleep(Duration::from_millis(100));
    let applied = world.gateway.set_table(table(with(&new), vec![])).unwrap();
    assert_eq!(applied.draining.get(&old.route.instance), Some(&1));
    assert_eq!(get(address, "/").unwrap().text(), "web-2");
    assert_eq!(event(&mut watch, Duration::from_millis(50)).unwrap(), None);
    await_drained(&mut watch, &old.route.instance);
    let (slow, next) = slow.join().unwrap();
    assert_eq!((slow.status, slow.text()), (200, "web-1"));
    assert_eq!((next.status, next.text()), (200, "web-2"));
}

#[test]
fn kept_connections_that_the_instance_closes_fail_no_request() {
    let Some(world) = World::start("kept_connections_that_close") else { return };
    let network = world.network("front-1");
    let backend = Backend::start(&network, "web-1", "127.0.0.1:0", Manner::Closing);
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    let address = world.gateway.set_table(table(routes, vec![])).unwrap().bound[0].address;
    let loads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Http1::connect(address).unwrap();
                for n in 0..1000 {
                    let answer = client.get("/").unwrap();
                    assert_eq!(answer.status, 200, "request {n}");
                }
            })
        })
        .collect();
    for load in loads {
        load.join().unwrap();
    }
    let status = world.gateway.status().unwrap();
    assert_eq!(status.endpoints[0].counters.responses, [0, 4000, 0, 0, 0]);
    assert_eq!(status.endpoints[0].counters.errors, 0);
}

#[test]
fn a_killed_instance_is_passed_over_and_reported() {
    let Some(world) = World::start("a_killed_instance_is_passed_over") else { return };
    let network = world.network("front-1");
    let mut watch = world.gateway.watch().unwrap();
    let alive = Backend::http(&network, "web-1");
    let dead = Backend::http(&network, "web-2");
    let gone = dead.route.instance.clone();
    let backends = vec![alive.route.clone(), dead.route.clone()];
    let routes = vec![endpoint("web", 0, Protocol::Http, backends)];
    let address = world.gateway.set_table(table(routes, vec![])).unwrap().bound[0].address;
    let mut client = Http1::connect(address).unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    drop(dead);
    for n in 0..500 {
        client.send(b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        assert_eq!(client.read().unwrap().status, 200, "request {n}");
    }
    let event = event(&mut watch, Duration::from_secs(5)).unwrap();
    assert!(
        matches!(&event, Some(Event::ConnectFailed { instance, .. }) if *instance == gone),
        "{event:?}"
    );
}
