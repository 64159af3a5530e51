//! Where requests go: by host and path, by client, past those that fail; and what is told of it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use kiln_gateway::control::Event;
use kiln_model::handling::{Balance, HashKey};
use kiln_model::route::{EndpointRoute, Protocol, Rule};

use crate::backend::{Backend, Manner};
use crate::client::{Http1, get, http2_call};
use crate::world::{Network, World, component, endpoint, event, eventually, free_port, table};

fn rule(host: Option<&str>, path: &str, backend: &Backend) -> Rule {
    Rule {
        host: host.map(str::to_owned),
        path: path.to_owned(),
        to: component("server.other"),
        backends: vec![backend.route.clone()],
        sleeps: false,
    }
}

/// Who answers a request for this host.
fn who(client: &mut Http1, host: &str, path: &str) -> (u16, String) {
    client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).unwrap();
    let answer = client.read().unwrap();
    (answer.status, answer.text().to_owned())
}

fn put(world: &World, routes: Vec<EndpointRoute>) -> Vec<SocketAddr> {
    let applied = world.gateway.set_table(table(routes, vec![])).unwrap();
    applied.bound.iter().map(|bound| bound.address).collect()
}

#[test]
fn requests_go_by_host_and_path_over_one_connection() {
    let Some(world) = World::start("requests_go_by_host_and_path") else { return };
    let network = world.network("front-1");
    let [main, api, other] = ["main-1", "api-1", "other-1"].map(|i| Backend::http(&network, i));
    let mut route = endpoint("web", 0, Protocol::Http, vec![main.route.clone()]);
    route.rules = vec![
        rule(None, "/api", &api),
        rule(Some("*.b.example"), "", &other),
        rule(Some("a.example"), "/api/deep", &other),
    ];
    let address = put(&world, vec![route.clone()])[0];
    let mut client = Http1::connect(address).unwrap();
    for (host, path, expected) in [
        ("a.example", "/", "main-1"),
        ("a.example", "/api", "api-1"),
        ("a.example", "/api/x?y=/z", "api-1"),
        ("a.example", "/apis", "main-1"),
        ("a.example:80", "/api/deep/er", "other-1"),
        ("x.B.example", "/", "other-1"),
    ] {
        assert_eq!(who(&mut client, host, path), (200, expected.to_owned()), "{host}{path}");
    }
    for path in ["/api/../x", "/x/%2e%2e/api", "//api"] {
        let (status, _) = who(&mut client, "a.example", path);
        assert_eq!(status, 400, "{path}");
    }
    let status = world.gateway.status().unwrap();
    let counted: Vec<_> =
        status.endpoints[0].routes.iter().map(|r| (r.path.as_str(), r.counters.requests)).collect();
    assert_eq!(counted, [("", 2), ("/api", 2), ("", 1), ("/api/deep", 1)]);
    assert_eq!(status.endpoints[0].counters.requests, 9);
    assert_eq!(status.endpoints[0].counters.responses, [0, 6, 0, 3, 0]);
    // A table without a rule sends its requests to the endpoint's own instances.
    route.rules.clear();
    put(&world, vec![route]);
    assert_eq!(who(&mut client, "a.example", "/api").1, "main-1");
}

#[test]
fn a_client_stays_with_its_instance_by_address_header_or_cookie() {
    let Some(world) = World::start("a_client_stays") else { return };
    let network = world.network("front-1");
    let instances: Vec<Backend> =
        (0..5).map(|n| Backend::http(&network, &format!("web-{n}"))).collect();
    let with = |balance: Balance, instances: &[Backend]| {
        let backends = instances.iter().map(|b| b.route.clone()).collect();
        let mut route = endpoint("web", 0, Protocol::Http, backends);
        route.handling.balance = balance;
        vec![route]
    };
    let address = put(&world, with(Balance::Hash(HashKey::Address), &instances))[0];
    let mut client = Http1::connect(address).unwrap();
    let seen: BTreeSet<_> = (0..20).map(|_| who(&mut client, "a", "/").1).collect();
    assert_eq!(seen.len(), 1);
    put(&world, with(Balance::Hash(HashKey::Cookie("sid".to_owned())), &instances));
    let by_cookie = |client: &mut Http1, sid: usize| {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: x=1; sid={sid}\r\n\r\n");
        client.send(request.as_bytes()).unwrap();
        client.read().unwrap().text().to_owned()
    };
    let before: Vec<_> = (0..50).map(|sid| by_cookie(&mut client, sid)).collect();
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 5);
    // One fewer: nobody else moves.
    put(&world, with(Balance::Hash(HashKey::Cookie("sid".to_owned())), &instances[..4]));
    for (sid, before) in before.iter().enumerate() {
        let after = by_cookie(&mut client, sid);
        assert!(if before == "web-4" { after != "web-4" } else { after == *before }, "{sid}");
    }
}

#[test]
fn an_instance_that_fails_in_a_row_is_passed_over_but_never_the_last() {
    let Some(world) = World::start("an_instance_that_fails") else { return };
    let network = world.network("front-1");
    let mut watch = world.gateway.watch().unwrap();
    let bad = Backend::start(&network, "bad-1", "127.0.0.1:0", Manner::Failing);
    let good = Backend::http(&network, "good-1");
    let both = vec![bad.route.clone(), good.route.clone()];
    let address = put(&world, vec![endpoint("web", 0, Protocol::Http, both)])[0];
    let mut client = Http1::connect(address).unwrap();
    let failed = (0..300).filter(|_| who(&mut client, "a", "/").0 == 500).count();
    // Five in a row, then a second's rest.
    assert!((5..=10).contains(&failed), "{failed}");
    let event = event(&mut watch, Duration::from_secs(5)).unwrap();
    assert!(
        matches!(&event, Some(Event::Faulty { instance, .. }) if *instance == bad.route.instance),
        "{event:?}"
    );
    let status = world.gateway.status().unwrap();
    let answers = |id: &Backend| {
        let found = status.instances.iter().find(|i| i.instance == id.route.instance).unwrap();
        found.answers.clone()
    };
    assert_eq!(answers(&bad).responses[4], failed as u64);
    assert_eq!(answers(&good).responses[1], 300 - failed as u64);
    put(&world, vec![endpoint("web", 0, Protocol::Http, vec![bad.route.clone()])]);
    assert!((0..20).all(|_| who(&mut client, "a", "/").0 == 500));
}

#[test]
fn http2_reaches_instances_with_its_trailers() {
    let Some(world) = World::start("http2_reaches_instances") else { return };
    let network = world.network("front-1");
    let instance = Backend::start(&network, "grpc-1", "127.0.0.1:0", Manner::Http2);
    let address =
        put(&world, vec![endpoint("grpc", 0, Protocol::H2c, vec![instance.route.clone()])])[0];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answers = runtime.block_on(http2_call(address, 300));
    for (body, status) in answers {
        assert_eq!((body.as_str(), status.as_str()), ("echo: hello over HTTP/2.0", "0"));
    }
    // A client of HTTP/1.1 is served by the same.
    let mut client = Http1::connect(address).unwrap();
    client.send(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").unwrap();
    let mut text = String::new();
    client.stream().get_mut().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = client.stream().read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("echo: hi"), "{text}");
}

#[test]
fn datagrams_stay_with_their_instance_until_it_leaves() {
    let Some(world) = World::start("datagrams_stay") else { return };
    let network = world.network("front-1");
    let [one, two] = ["udp-1", "udp-2"].map(|i| Backend::datagrams(&network, i));
    let with = |b: &Backend| vec![endpoint("dns", 0, Protocol::Udp, vec![b.route.clone()])];
    let mut routes = with(&one);
    routes[0].listen = ([127, 0, 0, 1], free_port()).into();
    let address = put(&world, routes.clone())[0];
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.connect(address).unwrap();
    let call = |text: &str| {
        let mut buffer = [0; 100];
        client.send(text.as_bytes()).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(call("a"), "udp-1: a");
    assert_eq!(call("b"), "udp-1: b");
    let status = world.gateway.status().unwrap();
    assert_eq!((status.instances[0].connections, status.endpoints[0].counters.connections), (1, 1));
    let mut watch = world.gateway.watch().unwrap();
    routes[0].backends = vec![two.route.clone()];
    put(&world, routes.clone());
    assert_eq!(call("c"), "udp-2: c");
    let drained = Event::Drained { instance: one.route.instance.clone() };
    assert_eq!(event(&mut watch, Duration::from_secs(5)).unwrap(), Some(drained));
    // A TCP listener at the same port is another one.
    let web = Backend::http(&network, "web-1");
    routes.push(endpoint("web", address.port(), Protocol::Http, vec![web.route.clone()]));
    put(&world, routes);
    assert_eq!(get(address, "/").unwrap().text(), "web-1");
    assert_eq!(call("d"), "udp-2: d");
}

#[test]
fn instances_of_a_tcp_endpoint_are_told_the_client() {
    let Some(world) = World::start("instances_are_told_the_client") else { return };
    let network: Network = world.network("front-1");
    let echo = Backend::bytes(&network, "echo-1");
    let mut route = endpoint("echo", 0, Protocol::Tcp, vec![echo.route.clone()]);
    route.handling.proxy_protocol = true;
    let address = put(&world, vec![route])[0];
    let mut stream = TcpStream::connect(address).unwrap();
    let local = stream.local_addr().unwrap();
    stream.write_all(b"hi").unwrap();
    let mut back = [0; 7 + 28 + 2];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back[..7], b"echo-1\n");
    assert_eq!(&back[7..19], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(&back[19..23], [0x21, 0x11, 0, 12]);
    assert_eq!(&back[23..31], [127, 0, 0, 1, 127, 0, 0, 1]);
    assert_eq!(&back[31..33], local.port().to_be_bytes());
    assert_eq!(&back[33..35], address.port().to_be_bytes());
    assert_eq!(&back[35..], b"hi");
}

#[test]
fn each_request_is_noted_where_that_is_asked_for() {
    let Some(world) = World::start("each_request_is_noted") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let echo = Backend::bytes(&network, "echo-1");
    let mut routes = vec![
        endpoint("web", 0, Protocol::Http, vec![backend.route.clone()]),
        endpoint("echo", 0, Protocol::Tcp, vec![echo.route.clone()]),
        endpoint("quiet", 0, Protocol::Http, vec![backend.route.clone()]),
    ];
    routes[0].handling.access_log = true;
    routes[1].handling.access_log = true;
    let at = put(&world, routes);
    let mut client = Http1::connect(at[0]).unwrap();
    assert_eq!(client.get("/download/100000").unwrap().body.len(), 100_000);
    assert_eq!(who(&mut client, "b.example", "/status/404").0, 404);
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").unwrap();
    assert_eq!(client.read().unwrap().status, 400);
    get(at[2], "/").unwrap();
    drop(TcpStream::connect(at[1]).unwrap());
    let directory = world.root.path().join("logs/access");
    let read = |name: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    eventually(Duration::from_secs(5), "all is written", || {
        read("shop.web.log").len() == 3 && read("shop.echo.log").len() == 1
    });
    let lines = read("shop.web.log");
    assert_eq!(lines[0]["method"], "GET");
    assert_eq!((&lines[0]["status"], &lines[0]["bytes"]), (&200.into(), &100_000.into()));
    assert_eq!(
        (&lines[0]["target"], &lines[0]["instance"]),
        (&"/download/100000".into(), &"web-1".into())
    );
    assert_eq!((&lines[1]["status"], &lines[1]["host"]), (&404.into(), &"b.example".into()));
    assert_eq!((&lines[2]["status"], lines[2].get("instance")), (&400.into(), None));
    assert!(lines[0]["milliseconds"].as_f64().unwrap() > 0.0);
    assert_eq!(read("shop.echo.log")[0]["instance"], "echo-1");
    assert!(!directory.join("shop.quiet.log").exists());
}
