//! What clients may not do, and what becomes of the others meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kiln_model::handling::Limits;
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::route::{EndpointRoute, Protocol};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::backend::Backend;
use crate::client::{Http1, get};
use crate::world::{World, endpoint, table};

fn put(world: &World, route: EndpointRoute) -> SocketAddr {
    world.gateway.set_table(table(vec![route], vec![])).unwrap().bound[0].address
}

fn limited(backends: &[&Backend], limits: Limits) -> EndpointRoute {
    let backends = backends.iter().map(|backend| backend.route.clone()).collect();
    let mut route = endpoint("web", 0, Protocol::Http, backends);
    route.handling.limits = limits;
    route
}

/// Requests at once, with what each got and when.
fn at_once(address: SocketAddr, count: usize, path: &'static str) -> Vec<(u16, Duration)> {
    let begun = Instant::now();
    let ask = move |_| {
        std::thread::spawn(move || {
            let answer = get(address, path).unwrap();
            assert!(answer.status == 200 || answer.header("retry-after") == Some("1"));
            (answer.status, begun.elapsed())
        })
    };
    let asked: Vec<_> = (0..count).map(ask).collect();
    asked.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn what_does_not_fit_into_the_queue_is_refused_at_once() {
    let Some(world) = World::start("what_does_not_fit") else { return };
    let network = world.network("front-1");
    let [one, two] = ["web-1", "web-2"].map(|i| Backend::http(&network, i));
    let limits = Limits {
        concurrency: Some(2),
        queue: Some(3),
        wait: Some(Millis::seconds(5)),
        ..Limits::default()
    };
    let address = put(&world, limited(&[&one, &two], limits.clone()));
    for _ in 0..3 {
        let answers = at_once(address, 20, "/slow/600");
        let refused: Vec<_> = answers.iter().filter(|(status, _)| *status == 503).collect();
        // Two places at each of two instances, and three that wait.
        assert_eq!(refused.len(), 13, "{answers:?}");
        assert!(refused.iter().all(|(_, after)| after.as_millis() < 550), "{refused:?}");
    }
    // It recovers by itself, and nobody has more than the instance may be given.
    assert!((0..50).all(|_| get(address, "/").unwrap().status == 200));
    let impatient = Limits { wait: Some(Millis(100)), ..limits };
    let address = put(&world, limited(&[&one], impatient));
    let answers = at_once(address, 5, "/slow/600");
    let waited: Vec<_> = answers.iter().filter(|(status, _)| *status == 503).collect();
    assert_eq!(waited.len(), 3, "{answers:?}");
    assert!(waited.iter().all(|(_, after)| (100..550).contains(&after.as_millis())), "{waited:?}");
}

#[test]
fn requests_wait_for_the_first_instance() {
    let Some(world) = World::start("requests_wait_for_the_first") else { return };
    let network = world.network("front-1");
    let hold = Limits { hold: Some(Millis::seconds(10)), ..Limits::default() };
    let address = put(&world, limited(&[], hold.clone()));
    let asked = std::thread::spawn(move || get(address, "/").unwrap());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.gateway.status().unwrap().endpoints[0].counters.waiting, 1);
    let instance = Backend::http(&network, "web-1");
    put(&world, limited(&[&instance], hold));
    assert_eq!(asked.join().unwrap().text(), "web-1");
}

#[test]
fn bodies_are_bounded_where_that_is_asked_for() {
    let Some(world) = World::start("bodies_are_bounded") else { return };
    let network = world.network("front-1");
    let instance = Backend::http(&network, "web-1");
    let limits = Limits { body: Some(Bytes(10)), ..Limits::default() };
    let address = put(&world, limited(&[&instance], limits));
    for (request, status) in [
        (&b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789"[..], 200),
        (b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n01234567890", 413),
        (
            b"POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
              6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n",
            413,
        ),
        (
            b"POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
              4\r\n0123\r\n6\r\n012345\r\n0\r\n\r\n",
            200,
        ),
    ] {
        let mut client = Http1::connect(address).unwrap();
        client.send(request).unwrap();
        assert_eq!(client.read().unwrap().status, status, "{}", String::from_utf8_lossy(request));
    }
}

/// Heads that two servers may understand differently; each is followed by a request that must
/// not be answered.
const SMUGGLED: &[&str] = &[
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0, 0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\n folded\r\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\nhost: a\n\n",
    "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\rx: y\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\n: no name\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nnul: \0\r\n\r\n",
    "GET http://a.example/ HTTP/1.1\r\nhost: b.example\r\n\r\n",
    "GET http://u@a.example/ HTTP/1.1\r\nhost: a.example\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    "GET / HTTP/9.9\r\nhost: a\r\n\r\n",
    "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET / HTTP/1.1 x\r\nhost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nz\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551616\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0 0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\x0b\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n transfer-encoding: chunked\r\nhost: a\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\nx: y\r\n\ttransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\nx: y\r\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx(y: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx\0: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\r\n\r\n",
    "GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
    "GET / http/1.1\r\nhost: a\r\n\r\n",
    "G\0T / HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET http://a.example/ HTTP/1.1\r\n\r\n",
    "GET a.example HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n 0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=\n\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n z\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx : y\r\n\r\n",
];

#[test]
fn what_could_be_smuggled_is_refused_and_nothing_behind_it_is_answered() {
    let Some(world) = World::start("what_could_be_smuggled") else { return };
    let network = world.network("front-1");
    let instance = Backend::http(&network, "web-1");
    let address = put(&world, limited(&[&instance], Limits::default()));
    let behind = "GET /status/299 HTTP/1.1\r\nhost: a\r\n\r\n";
    for head in SMUGGLED {
        for pieces in [1, 7] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(b"GET /status/201 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            let bytes = format!("{head}{behind}").into_bytes();
            for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                // The other side may have closed already, and rightly so.
                let _ = stream.write_all(piece);
            }
            let mut answers = Vec::new();
            let _ = stream.read_to_end(&mut answers);
            let text = String::from_utf8_lossy(&answers);
            let statuses: Vec<_> =
                text.match_indices("HTTP/1.").map(|(at, _)| &text[at + 9..at + 12]).collect();
            assert!(
                matches!(statuses[..], ["201", "400" | "505"]),
                "{head:?} in {pieces}: {statuses:?}"
            );
        }
    }
}

#[test]
fn five_thousand_slow_clients_leave_others_unharmed() {
    const SLOW: usize = 5000;
    let Some(world) = World::start("five_thousand_slow_clients") else { return };
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, wanted);
    if getrlimit(Resource::Nofile).current.is_some_and(|n| n < 2 * SLOW as u64) {
        println!("skipped: five_thousand_slow_clients: needs 10,000 descriptors");
        return;
    }
    let network = world.network("front-1");
    let instance = Backend::http(&network, "web-1");
    let address = put(&world, limited(&[&instance], Limits::default()));
    let mut normal = Http1::connect(address).unwrap();
    assert_eq!(normal.get("/").unwrap().status, 200);
    let before = world.memory();
    let mut slow = Vec::with_capacity(SLOW);
    for _ in 0..SLOW {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").unwrap();
        slow.push(stream);
    }
    let each = world.memory().saturating_sub(before) / SLOW as u64;
    let mut latencies = Vec::new();
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        for stream in slow.iter_mut().skip(latencies.len() % 10).step_by(97) {
            let _ = stream.write_all(b"z");
        }
        let begun = Instant::now();
        assert_eq!(normal.get("/").unwrap().status, 200);
        assert_eq!(get(address, "/").unwrap().status, 200);
        latencies.push(begun.elapsed());
    }
    latencies.sort();
    let p99 = latencies[latencies.len() * 99 / 100];
    println!("{} rounds, p99 {p99:?}, {each} bytes for each slow client", latencies.len());
    assert!(p99 < Duration::from_millis(250), "{p99:?}");
    assert!(each < 32 << 10, "{each} bytes for each slow client");
    // They are ended by their own slowness, not by the others.
    let mut byte = [0];
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        // A signal to the process is no answer.
        let read = loop {
            match stream.read(&mut byte) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("still open: {other:?}"),
        }
    }
    assert_eq!(normal.get("/").unwrap().status, 200);
}
