//! Connections that are passed on as bytes, and endpoints that may be either.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kiln_gateway::control::Event;
use kiln_model::route::Protocol;

use crate::backend::Backend;
use crate::client::get;
use crate::world::{World, endpoint, event, table};

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    BufReader::new(stream)
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_connection_stays_with_its_instance_until_it_is_severed() {
    let Some(world) = World::start("a_connection_stays") else { return };
    let network = world.network("front-1");
    let mut watch = world.gateway.watch().unwrap();
    let old = Backend::bytes(&network, "echo-1");
    let new = Backend::bytes(&network, "echo-2");
    let with = |b: &Backend| vec![endpoint("echo", 0, Protocol::Tcp, vec![b.route.clone()])];
    let applied = world.gateway.set_table(table(with(&old), vec![])).unwrap();
    let address = applied.bound[0].address;
    let mut first = connect(address);
    assert_eq!(line(&mut first), "echo-1\n");
    world.gateway.set_table(table(with(&new), vec![])).unwrap();
    assert_eq!(line(&mut connect(address)), "echo-2\n");
    first.get_mut().write_all(b"still here\n").unwrap();
    assert_eq!(line(&mut first), "still here\n");
    assert_eq!(event(&mut watch, Duration::from_millis(50)).unwrap(), None);
    assert_eq!(world.gateway.sever(old.route.instance.clone()).unwrap(), 0);
    let error = first.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let drained = Event::Drained { instance: old.route.instance.clone() };
    assert_eq!(event(&mut watch, Duration::from_secs(5)).unwrap(), Some(drained));
}

#[test]
fn either_protocol_is_told_by_the_first_bytes() {
    let Some(world) = World::start("either_protocol_is_told") else { return };
    let network = world.network("front-1");
    let bytes = Backend::bytes(&network, "echo-1");
    let http = Backend::http(&network, "web-1");
    let routes = vec![
        endpoint("echo", 0, Protocol::Auto, vec![bytes.route.clone()]),
        endpoint("web", 0, Protocol::Auto, vec![http.route.clone()]),
    ];
    let applied = world.gateway.set_table(table(routes, vec![])).unwrap();
    // The server speaks first.
    assert_eq!(line(&mut connect(applied.bound[0].address)), "echo-1\n");
    // The client speaks first, and not HTTP.
    let mut client = connect(applied.bound[0].address);
    client.get_mut().write_all(b"\x00\x01\n").unwrap();
    assert_eq!(line(&mut client), "echo-1\n");
    assert_eq!(line(&mut client), "\x00\x01\n");
    assert_eq!(get(applied.bound[1].address, "/").unwrap().text(), "web-1");
    let counters = world.gateway.status().unwrap().endpoints[1].counters.clone();
    assert_eq!(counters.requests, 1);
}

#[test]
fn without_an_instance_connections_are_reset() {
    let Some(world) = World::start("without_an_instance_tcp") else { return };
    let routes = vec![endpoint("echo", 0, Protocol::Tcp, vec![])];
    let address = world.gateway.set_table(table(routes, vec![])).unwrap().bound[0].address;
    let error = connect(address).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
