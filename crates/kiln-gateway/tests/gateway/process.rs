//! The gateway's beginning and end.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use kiln_gateway::ensure_running;
use kiln_model::route::Protocol;
use rustix::process::Signal;

use crate::backend::Backend;
use crate::client::Http1;
use crate::world::{World, endpoint, eventually, exe, table};

#[test]
fn several_callers_get_one_gateway() {
    let Some(world) = World::start("several_callers") else { return };
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let root = world.root.path().to_owned();
            std::thread::spawn(move || ensure_running(&root, &exe()).unwrap().status().unwrap().pid)
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), world.pid);
    }
    let status = world.gateway.status().unwrap();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    let run = world.root.path().join("run");
    let socket = std::fs::metadata(run.join("gateway.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let pid = std::fs::read_to_string(run.join("gateway.pid")).unwrap();
    assert_eq!(pid.trim(), world.pid.to_string());
    let session =
        rustix::process::getsid(rustix::process::Pid::from_raw(i32::try_from(world.pid).unwrap()));
    assert_eq!(session.unwrap().as_raw_nonzero().get().unsigned_abs(), world.pid);
}

#[test]
fn it_ends_when_the_last_table_is_empty_and_comes_back() {
    let Some(world) = World::start("it_ends_when_empty") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = || vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    let address = world.gateway.set_table(table(routes(), vec![])).unwrap().bound[0].address;
    let mut idle = Http1::connect(address).unwrap();
    assert_eq!(idle.get("/").unwrap().status, 200);
    let mut busy = Http1::connect(address).unwrap();
    busy.send(b"GET /slow/600 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    world.gateway.set_table(table(vec![], vec![])).unwrap();
    assert!(world.is_running());
    let answer = busy.read().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(idle.stream().read(&mut [0]).unwrap(), 0);
    let over = Instant::now();
    eventually(Duration::from_secs(5), "the gateway ends", || !world.is_running());
    println!("gone {:?} after the last response", over.elapsed());
    let run = world.root.path().join("run");
    assert!(!run.join("gateway.sock").exists() && !run.join("gateway.pid").exists());
    let again = ensure_running(world.root.path(), &exe()).unwrap();
    again.set_table(table(routes(), vec![])).unwrap();
    again.set_table(table(vec![], vec![])).unwrap();
    again.set_table(table(routes(), vec![])).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    again.set_table(table(vec![], vec![])).unwrap();
    eventually(Duration::from_secs(5), "the second one ends", || again.status().is_err());
}

#[test]
fn a_killed_gateway_is_replaced() {
    let Some(mut world) = World::start("a_killed_gateway") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    let mut table = table(routes, vec![]);
    let address = world.gateway.set_table(table.clone()).unwrap().bound[0].address;
    table.endpoints[0].listen = address;
    let mut watch = world.gateway.watch().unwrap();
    let killed = world.pid;
    world.signal(Signal::KILL);
    assert!(watch.next(Duration::from_secs(5)).is_err());
    world.gateway = ensure_running(world.root.path(), &exe()).unwrap();
    world.pid = world.gateway.status().unwrap().pid;
    assert_ne!(world.pid, killed);
    world.gateway.set_table(table).unwrap();
    assert_eq!(Http1::connect(address).unwrap().get("/").unwrap().status, 200);
}

#[test]
fn told_to_end_it_finishes_what_is_in_flight() {
    let Some(world) = World::start("told_to_end") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    let address = world.gateway.set_table(table(routes, vec![])).unwrap().bound[0].address;
    let mut busy = Http1::connect(address).unwrap();
    busy.send(b"GET /slow/500 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    world.signal(Signal::TERM);
    assert_eq!(busy.read().unwrap().status, 200);
    assert!(Http1::connect(address).is_err());
    eventually(Duration::from_secs(5), "the gateway ends", || !world.is_running());
}
