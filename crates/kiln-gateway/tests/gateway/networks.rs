//! Stable addresses and names inside networks.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use kiln_model::route::{Client, NetworkRoute, Protocol, SERVICE_PORT, Service, ServiceBackend};

use crate::backend::{Backend, Manner};
use crate::client::Http1;
use crate::world::{Network, World, component, endpoint, eventually, table};

const RESOLVER: &str = "10.60.0.1";
const STABLE: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 130);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 131);

/// Connects from `from` to `to` inside the network.
fn connect(network: &Network, from: Ipv4Addr, to: SocketAddrV4) -> std::io::Result<TcpStream> {
    let socket = network.namespace.tcp_socket().unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(from, 0))?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    rustix::net::connect(&stream, &to)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// A client's network and a server's, with a service between them.
fn route(client: &Network, backend: &Backend, http_ports: Vec<u16>) -> NetworkRoute {
    let service = Service {
        component: component("server.api"),
        address: STABLE,
        clients: vec![CLIENT],
        http_ports,
        backends: vec![ServiceBackend {
            instance: backend.route.instance.clone(),
            network: backend.route.network.clone(),
            address: *backend.route.address.ip(),
        }],
        sleeps: false,
    };
    let names =
        BTreeMap::from([("api".to_owned(), STABLE), ("api.server.kiln".to_owned(), STABLE)]);
    let mut route = client.route(RESOLVER);
    route.services.push(service);
    route.clients.insert(CLIENT, Client { names });
    route
}

fn networks(world: &World) -> (Network, Network) {
    let (front, back) = (world.network("front-1"), world.network("back-1"));
    for address in [RESOLVER, &STABLE.to_string(), &CLIENT.to_string(), &STRANGER.to_string()] {
        front.add_address(address);
    }
    (front, back)
}

#[test]
fn a_stable_address_leads_to_the_instance_for_those_who_may() {
    let Some(world) = World::start("a_stable_address") else { return };
    let (front, back) = networks(&world);
    let at = format!("127.0.0.1:{SERVICE_PORT}");
    let to = SocketAddrV4::new(STABLE, SERVICE_PORT);
    let bytes = Backend::start(&back, "api-1", &at, Manner::Bytes);
    world.gateway.set_table(table(vec![], vec![route(&front, &bytes, vec![])])).unwrap();
    let mut stream = connect(&front, CLIENT, to).unwrap();
    stream.write_all(b"hi").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "api-1\nhi");
    let refused = connect(&front, STRANGER, to).and_then(|mut stream| stream.read(&mut [0]));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    drop(bytes);
    let http = Backend::start(&back, "api-2", &at, Manner::Http);
    let routes = vec![route(&front, &http, vec![SERVICE_PORT])];
    world.gateway.set_table(table(vec![], routes)).unwrap();
    let mut stream = connect(&front, CLIENT, to).unwrap();
    stream.write_all(b"GET /headers HTTP/1.0\r\nhost: api\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.contains(&format!("x-forwarded-for: {CLIENT}\n")), "{all}");
}

#[test]
fn names_are_answered_per_client() {
    let Some(world) = World::start("names_are_answered") else { return };
    let (front, back) = networks(&world);
    let backend = Backend::http(&back, "api-1");
    world.gateway.set_table(table(vec![], vec![route(&front, &backend, vec![])])).unwrap();
    let ask = |from: Ipv4Addr, name: &str, kind: u8| {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, kind, 0, 1]);
        let server: SocketAddrV4 = format!("{RESOLVER}:53").parse().unwrap();
        let socket = front.namespace.udp_bound(SocketAddrV4::new(from, 0)).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(&query, server).unwrap();
        let mut reply = vec![0; 512];
        let length = socket.recv(&mut reply).unwrap();
        reply.truncate(length);
        let mut stream = connect(&front, from, server).unwrap();
        let framed = [&[0, u8::try_from(query.len()).unwrap()][..], &query].concat();
        stream.write_all(&framed).unwrap();
        let mut over_tcp = vec![0; length + 2];
        stream.read_exact(&mut over_tcp).unwrap();
        assert_eq!(over_tcp[2..], reply);
        (reply[3] & 0x0f, reply[7], reply[length - 4..].to_vec())
    };
    let (code, answers, address) = ask(CLIENT, "API.server.Kiln", 1);
    assert_eq!((code, answers, address), (0, 1, STABLE.octets().to_vec()));
    let (code, answers, _) = ask(CLIENT, "api", 28);
    assert_eq!((code, answers), (0, 0));
    assert_eq!(ask(CLIENT, "web.server.kiln", 1).0, 3);
    assert_eq!(ask(CLIENT, "example.org", 1).0, 3);
    assert_eq!(ask(STRANGER, "api", 1).0, 5);
}

#[test]
fn a_removed_network_is_let_go_of() {
    let Some(world) = World::start("a_removed_network") else { return };
    let (front, back) = networks(&world);
    let at = format!("127.0.0.1:{SERVICE_PORT}");
    let bytes = Backend::start(&back, "api-1", &at, Manner::Bytes);
    let other = world.network("other-1");
    other.add_address("10.61.0.1");
    let kept = || other.route("10.61.0.1");
    world.gateway.set_table(table(vec![], vec![kept()])).unwrap();
    let before = world.settled_sockets();
    world.gateway.set_table(table(vec![], vec![kept(), route(&front, &bytes, vec![])])).unwrap();
    let to = SocketAddrV4::new(STABLE, SERVICE_PORT);
    let mut open = connect(&front, CLIENT, to).unwrap();
    let mut greeting = [0; 6];
    open.read_exact(&mut greeting).unwrap();
    assert!(world.sockets() >= before + 5);
    assert!(!front.is_let_go_of_by(&world) && !back.is_let_go_of_by(&world));
    world.gateway.set_table(table(vec![], vec![kept()])).unwrap();
    eventually(Duration::from_secs(2), "all sockets closed", || world.sockets() <= before);
    eventually(Duration::from_secs(2), "both networks let go of", || {
        front.is_let_go_of_by(&world) && back.is_let_go_of_by(&world)
    });
    assert!(open.read(&mut [0]).is_err());
}

#[test]
fn a_kept_client_connection_holds_nothing_of_earlier_instances() {
    let Some(world) = World::start("a_kept_client_connection") else { return };
    let (old, new) = (world.network("front-1"), world.network("front-2"));
    let before = Backend::http(&old, "web-1");
    let after = Backend::http(&new, "web-2");
    let with = |b: &Backend| vec![endpoint("web", 0, Protocol::Http, vec![b.route.clone()])];
    let applied = world.gateway.set_table(table(with(&before), vec![])).unwrap();
    let mut client = Http1::connect(applied.bound[0].address).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "web-1");
    assert!(!old.is_let_go_of_by(&world));
    world.gateway.set_table(table(with(&after), vec![])).unwrap();
    eventually(Duration::from_secs(1), "the old network is let go of", || {
        old.is_let_go_of_by(&world)
    });
    assert_eq!(client.get("/").unwrap().text(), "web-2");
}
