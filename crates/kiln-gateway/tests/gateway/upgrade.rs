//! One process of the gateway hands over to the next, and nobody notices.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_gateway::control::Event;
use kiln_gateway::{Gateway, ensure_running, renew};
use kiln_model::route::Protocol;

use crate::backend::Backend;
use crate::client::{Http1, get, http2_steady};
use crate::load::{Load, repeat};
use crate::world::{World, endpoint, event, eventually, exe, table};

/// Another build of the program: a copy of it, which is another file.
fn another_build(world: &World, number: u32) -> std::path::PathBuf {
    let path = world.root.path().join(format!("gateway-{number}"));
    std::fs::copy(exe(), &path).unwrap();
    path
}

/// Lets another build take over; returns its process.
fn upgrade(world: &mut World, number: u32) -> u32 {
    let build = another_build(world, number);
    ensure_running(world.root.path(), &build).unwrap();
    let pid = world.gateway.status().unwrap().pid;
    assert_ne!(pid, world.pid, "upgrade {number}");
    world.pid = pid;
    pid
}

fn failed(text: impl ToString) -> std::io::Error {
    std::io::Error::other(text.to_string())
}

/// Asks over a kept connection, and makes another one where it was told to.
fn kept(address: SocketAddr, path: &'static str) -> impl FnMut() -> std::io::Result<()> + Send {
    let mut client = Http1::connect(address).unwrap();
    move || {
        let answer = client.get(path)?;
        if answer.header("connection") == Some("close") {
            client = Http1::connect(address)?;
        }
        if answer.status == 200 { Ok(()) } else { Err(failed(answer.status)) }
    }
}

fn fresh(address: SocketAddr, path: &'static str) -> impl FnMut() -> std::io::Result<()> + Send {
    move || match get(address, path)?.status {
        200 => Ok(()),
        status => Err(failed(status)),
    }
}

fn converse(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    if all.ends_with("\nhello") { Ok(()) } else { Err(failed(all)) }
}

/// An upgraded connection that stays open throughout.
fn socket(address: SocketAddr) -> impl FnMut() -> std::io::Result<()> + Send {
    let mut client = Http1::connect(address).unwrap();
    client
        .send(b"GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n")
        .unwrap();
    assert_eq!(client.read().unwrap().status, 101);
    move || {
        let mut echoed = [0; 5];
        client.send(b"hello")?;
        client.stream().read_exact(&mut echoed)?;
        std::thread::sleep(Duration::from_millis(5));
        if &echoed == b"hello" { Ok(()) } else { Err(failed("another text")) }
    }
}

/// A download that takes as long as it is let.
fn download(address: SocketAddr, stop: &Arc<AtomicBool>) -> Load {
    let mut client = Http1::connect(address).unwrap();
    let size = 400_000_000_u64;
    client.send(format!("GET /download/{size} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut count, mut buffer) = (0, vec![0; 20_000]);
        while !stop.load(Ordering::SeqCst) {
            count +=
                client.stream().read(&mut buffer).map_err(|e| format!("download: {e}"))? as u64;
            std::thread::sleep(Duration::from_millis(2));
        }
        // Then as fast as it goes, to the end.
        loop {
            match client.stream().read(&mut buffer).map_err(|e| format!("download: {e}"))? {
                0 => return Err(format!("the download ended after {count} bytes")),
                length => count += length as u64,
            }
            if count >= size {
                return Ok(count);
            }
        }
    })
}

#[test]
fn twenty_upgrades_under_load_fail_nothing() {
    let Some(mut world) = World::start("twenty_upgrades") else { return };
    let network = world.network("front-1");
    let mut web = vec![Backend::http(&network, "web-0"), Backend::http(&network, "web-00")];
    let echo = Backend::bytes(&network, "echo-0");
    let udp = Backend::datagrams(&network, "udp-0");
    let udp_port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let put = |world: &World, web: &[Backend]| {
        let routes = vec![
            endpoint("web", 0, Protocol::Auto, web.iter().map(|b| b.route.clone()).collect()),
            endpoint("echo", 0, Protocol::Tcp, vec![echo.route.clone()]),
            endpoint("udp", udp_port, Protocol::Udp, vec![udp.route.clone()]),
        ];
        world.gateway.set_table(table(routes, vec![])).unwrap().bound
    };
    let bound = put(&world, &web);
    let (http, tcp) = (bound[0].address, bound[1].address);
    let stop = Arc::new(AtomicBool::new(false));
    let long = download(http, &stop);
    let mut loads = vec![
        repeat(&stop, "kept", kept(http, "/")),
        repeat(&stop, "kept slow", kept(http, "/slow/20")),
        repeat(&stop, "fresh", fresh(http, "/")),
        repeat(&stop, "fresh download", fresh(http, "/download/200000")),
        repeat(&stop, "tcp", move || converse(tcp)),
        repeat(&stop, "socket", socket(http)),
        repeat(&stop, "udp", datagrams(bound[2].address)),
    ];
    let steady = Arc::clone(&stop);
    loads.push(std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(http2_steady(http, || !steady.load(Ordering::SeqCst)))
    }));
    let mut pids = BTreeSet::from([world.pid]);
    let mut retired = Vec::new();
    for round in 1..=20 {
        std::thread::sleep(Duration::from_millis(50));
        pids.insert(upgrade(&mut world, round));
        // And an instance goes between two upgrades, while old processes still serve it.
        let mut watch = world.gateway.watch().unwrap();
        let new = Backend::http(&network, &format!("web-{round}"));
        let old = std::mem::replace(&mut web[0], new);
        web.rotate_left(1);
        put(&world, &web);
        // What carries the long ones stays, as it would until its drain's bound.
        if round > 2 {
            await_drained(&mut watch, &old);
            drop(old);
        } else {
            retired.push(old);
        }
    }
    stop.store(true, Ordering::SeqCst);
    loads.push(long);
    let counts: Vec<_> = loads.into_iter().map(|load| load.join().unwrap()).collect();
    println!("per load: {counts:?}");
    assert!(counts.iter().all(|count| matches!(count, Ok(20..))), "{counts:?}");
    pids.remove(&world.pid);
    eventually(Duration::from_secs(20), "the old processes end", || {
        pids.iter().all(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_err())
    });
    assert_eq!(get(http, "/").unwrap().status, 200);
    let run = world.root.path().join("run");
    let pid = std::fs::read_to_string(run.join("gateway.pid")).unwrap();
    assert_eq!(pid.trim(), world.pid.to_string());
}

fn datagrams(address: SocketAddr) -> impl FnMut() -> std::io::Result<()> + Send {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.connect(address).unwrap();
    move || {
        let mut buffer = [0; 64];
        client.send(b"hello")?;
        let length = client.recv(&mut buffer)?;
        std::thread::sleep(Duration::from_millis(2));
        if buffer[..length].ends_with(b": hello") { Ok(()) } else { Err(failed("another text")) }
    }
}

fn await_drained(watch: &mut kiln_gateway::control::Watch, instance: &Backend) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Some(Event::Drained { instance: drained }) =
            event(watch, Duration::from_secs(1)).unwrap()
            && drained == instance.route.instance
        {
            return;
        }
    }
    panic!("{} is not drained", instance.route.instance);
}

#[test]
fn what_the_process_before_has_in_flight_is_waited_for_and_can_be_severed() {
    let Some(mut world) = World::start("what_the_process_before") else { return };
    let network = world.network("front-1");
    let [old, new] = ["web-1", "web-2"].map(|i| Backend::http(&network, i));
    let with = |b: &Backend| vec![endpoint("web", 0, Protocol::Http, vec![b.route.clone()])];
    let applied = world.gateway.set_table(table(with(&old), vec![])).unwrap();
    let address = applied.bound[0].address;
    let mut idle = Http1::connect(address).unwrap();
    assert_eq!(idle.get("/").unwrap().text(), "web-1");
    let slow = std::thread::spawn(move || get(address, "/slow/900").unwrap());
    let mut tunnel = socket(address);
    tunnel().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut before = world.gateway.watch().unwrap();
    let first = world.pid;
    upgrade(&mut world, 1);
    // Whoever had subscribed is told to do so again.
    assert!(before.next(Duration::from_secs(5)).is_err());
    upgrade(&mut world, 2);
    let mut watch = world.gateway.watch().unwrap();
    let applied = world.gateway.set_table(table(with(&new), vec![])).unwrap();
    assert_eq!(applied.draining.get(&old.route.instance), Some(&1));
    // A kept connection of the first process asks once more, by the new table.
    let last = idle.get("/").unwrap();
    assert_eq!((last.text(), last.header("connection")), ("web-2", Some("close")));
    let slow = slow.join().unwrap();
    assert_eq!((slow.status, slow.text()), (200, "web-1"));
    tunnel().unwrap();
    assert_eq!(event(&mut watch, Duration::from_millis(300)).unwrap(), None);
    assert_eq!(world.gateway.sever(old.route.instance.clone()).unwrap(), 0);
    assert!(tunnel().is_err());
    await_drained(&mut watch, &old);
    eventually(Duration::from_secs(10), "the first process ends", || {
        std::fs::read_link(format!("/proc/{first}/exe")).is_err()
    });
}

#[test]
fn a_process_that_fails_to_take_over_changes_nothing() {
    let Some(world) = World::start("a_process_that_fails") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    let address = world.gateway.set_table(table(routes, vec![])).unwrap().bound[0].address;
    // A program that ends at once, and one that asks for everything and then goes away.
    let gateway = ensure_running(world.root.path(), std::path::Path::new("/bin/false")).unwrap();
    assert_eq!(gateway.status().unwrap().pid, world.pid);
    let control = world.root.path().join("run/gateway.sock");
    for _ in 0..3 {
        let mut stream = std::os::unix::net::UnixStream::connect(&control).unwrap();
        let ask = format!(
            "{{\"protocol\":{},\"request\":\"hand_over\",\"version\":1}}\n",
            kiln_gateway::control::PROTOCOL
        );
        stream.write_all(ask.as_bytes()).unwrap();
        let mut offered = [0; 200];
        assert!(stream.read(&mut offered).unwrap() > 0);
        assert!(String::from_utf8_lossy(&offered).contains("estate"));
        drop(stream);
        assert_eq!(get(address, "/").unwrap().status, 200);
    }
    assert_eq!(Gateway::of(world.root.path()).status().unwrap().pid, world.pid);
    assert!(!renew(world.root.path(), &exe()).unwrap());
    // A version of the hand-over that is not spoken is refused.
    let mut stream = std::os::unix::net::UnixStream::connect(&control).unwrap();
    stream.write_all(b"{\"protocol\":99,\"request\":\"hand_over\",\"version\":99}\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("hand_over_version"), "{reply}");
}
