//! What happens to a request and its response on the way.

use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kiln_model::route::Protocol;

use crate::backend::Backend;
use crate::client::{Http1, get, http2_until_closed};
use crate::world::{Network, World, endpoint, table};

/// A world with one instance behind one HTTP endpoint.
fn served(name: &str) -> Option<(World, Network, Backend, SocketAddr)> {
    let world = World::start(name)?;
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    let address = world.gateway.set_table(table(routes, vec![])).unwrap().bound[0].address;
    Some((world, network, backend, address))
}

#[test]
fn heads_are_changed_as_a_proxy_has_to() {
    let Some((_world, _network, _backend, address)) = served("heads_are_changed") else { return };
    let mut client = Http1::connect(address).unwrap();
    client
        .send(
            b"GET http://a.example/headers?x=1 HTTP/1.1\r\nhost: A.example\r\n\
              connection: x-private\r\nx-private: 1\r\nx-forwarded-for: 1.2.3.4\r\n\
              x-forwarded-proto: https\r\nte: trailers\r\naccept: */*\r\n\r\n",
        )
        .unwrap();
    let answer = client.read().unwrap();
    let mut lines: Vec<_> = answer.text().lines().collect();
    lines.sort_unstable();
    let expected = [
        "GET /headers?x=1",
        "accept: */*",
        "connection: te",
        "forwarded: for=127.0.0.1;host=\"a.example\";proto=http",
        "host: a.example",
        "te: trailers",
        "x-forwarded-for: 1.2.3.4, 127.0.0.1",
        "x-forwarded-host: a.example",
        "x-forwarded-proto: http",
    ];
    assert_eq!(lines, expected);
    let answer = client.get("/status/404").unwrap();
    assert_eq!((answer.status, answer.text()), (404, "web-1"));
    client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        client.stream().read_line(&mut head).unwrap();
    }
    assert!(head.contains("content-length: 5\r\n"), "{head}");
    assert_eq!(client.get("/").unwrap().text(), "web-1");
}

#[test]
fn ambiguous_requests_are_refused() {
    let Some((_world, _network, _backend, address)) = served("ambiguous_requests") else { return };
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, x\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        let mut client = Http1::connect(address).unwrap();
        client.send(request.as_bytes()).unwrap();
        let answer = client.read().unwrap();
        assert_eq!(answer.status, 400, "{request:?}: {}", answer.head);
    }
    let mut client = Http1::connect(address).unwrap();
    client.send(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n").unwrap();
    assert_eq!(client.read().unwrap().status, 405);
    let mut client = Http1::connect(address).unwrap();
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let _ = client.send(long.as_bytes());
    let answer = client.read();
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
}

#[test]
fn a_body_that_waits_for_leave_gets_it() {
    let Some((_world, _network, _backend, address)) = served("a_body_that_waits") else { return };
    let mut client = Http1::connect(address).unwrap();
    client
        .send(
            b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\
              expect: 100-continue\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.read().unwrap().status, 100);
    client.send(b"abcd").unwrap();
    assert_eq!(client.read().unwrap().text(), "4");
}

#[test]
fn what_comes_after_a_body_is_passed_on() {
    let Some((_world, _network, _backend, address)) = served("what_comes_after") else { return };
    let mut client = Http1::connect(address).unwrap();
    client
        .send(
            b"POST /trailers HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
              trailer: x-checked\r\n\r\n3\r\nabc\r\n0\r\nx-checked: yes\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.read().unwrap().text(), "yes");
}

#[test]
fn an_http2_connection_of_a_removed_listener_finishes_what_it_has() {
    let Some((world, _network, backend, address)) = served("an_http2_connection") else { return };
    let slow = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(http2_until_closed(address, "/slow/400"))
    });
    std::thread::sleep(Duration::from_millis(150));
    let other = vec![endpoint("other", 0, Protocol::Http, vec![backend.route.clone()])];
    world.gateway.set_table(table(other, vec![])).unwrap();
    let (status, closed_cleanly) = slow.join().unwrap();
    assert_eq!((status, closed_cleanly), (200, true));
}

#[test]
fn an_upgraded_connection_is_a_tunnel_until_it_is_severed() {
    let Some((world, network, backend, address)) = served("an_upgraded_connection") else { return };
    let mut client = Http1::connect(address).unwrap();
    client
        .send(b"GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n")
        .unwrap();
    let answer = client.read().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    let mut echoed = [0; 5];
    let mut echo = |text: &[u8; 5]| {
        client.send(text)?;
        client.stream().read_exact(&mut echoed)?;
        assert_eq!(&echoed, text);
        std::io::Result::Ok(())
    };
    echo(b"first").unwrap();
    let next = Backend::http(&network, "web-2");
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![next.route.clone()])];
    let applied = world.gateway.set_table(table(routes, vec![])).unwrap();
    assert_eq!(applied.draining.get(&backend.route.instance), Some(&1));
    echo(b"still").unwrap();
    let status = world.gateway.status().unwrap();
    let old = status.instances.iter().find(|i| i.instance == backend.route.instance).unwrap();
    assert_eq!((old.requests, old.connections, old.draining), (0, 1, true));
    assert_eq!(world.gateway.sever(backend.route.instance.clone()).unwrap(), 0);
    assert!(echo(b"later").is_err());
}

/// A hundred megabytes.
const SIZE: usize = 100_000_000;

#[test]
fn bodies_of_a_hundred_megabytes_are_streamed() {
    let Some((world, _network, _backend, address)) = served("bodies_are_streamed") else { return };
    get(address, "/").unwrap();
    let before = world.memory();
    let mut client = Http1::connect(address).unwrap();
    client
        .send(
            format!("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n")
                .as_bytes(),
        )
        .unwrap();
    let chunk = vec![7; 100_000];
    for _ in 0..SIZE / chunk.len() {
        client.stream().get_mut().write_all(&chunk).unwrap();
    }
    assert_eq!(client.read().unwrap().text(), SIZE.to_string());
    client.send(format!("GET /download/{SIZE} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
    // A reader that starts late makes the gateway wait, not gather.
    std::thread::sleep(Duration::from_millis(300));
    let grown = world.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    assert_eq!(client.read().unwrap().body.len(), SIZE);
    let grown = world.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
}

#[test]
fn slow_heads_end_their_connection_and_no_other() {
    let Some((_world, _network, _backend, address)) = served("slow_heads") else { return };
    let mut other = Http1::connect(address).unwrap();
    assert_eq!(other.get("/").unwrap().status, 200);
    let started = Instant::now();
    let mut silent = Http1::connect(address).unwrap();
    let mut slow = Http1::connect(address).unwrap();
    slow.send(b"GET / HTTP/1.1\r\nhost: a\r\n").unwrap();
    let mut second = Http1::connect(address).unwrap();
    assert_eq!(second.get("/").unwrap().status, 200);
    second.send(b"GET / HTTP/1.1\r\n").unwrap();
    let mut byte = [0];
    for client in [&mut silent, &mut slow, &mut second] {
        assert_eq!(client.stream().read(&mut byte).unwrap_or(0), 0);
    }
    let elapsed = started.elapsed();
    assert!((8..25).contains(&elapsed.as_secs()), "{elapsed:?}");
    assert_eq!(other.get("/").unwrap().status, 200);
}
