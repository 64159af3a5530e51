//! Tables are taken whole or not at all.

use std::net::TcpListener;
use std::time::Duration;

use kiln_gateway::GatewayError;
use kiln_gateway::control::Refusal;
use kiln_model::route::{Protocol, RouteTable};

use crate::backend::Backend;
use crate::client::{Http1, get};
use crate::world::{World, endpoint, free_port, table};

fn refusal(world: &World, table: RouteTable) -> Refusal {
    match world.gateway.set_table(table) {
        Err(GatewayError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_taken_port_changes_nothing_and_names_its_holder() {
    let Some(world) = World::start("a_taken_port") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let route = |name, port| endpoint(name, port, Protocol::Http, vec![backend.route.clone()]);
    let (kept, free) = (free_port(), free_port());
    world.gateway.set_table(table(vec![route("kept", kept)], vec![])).unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let mut offered = table(vec![route("new", free), route("shop", taken.port())], vec![]);
    let refused = refusal(&world, offered.clone());
    let by_us = format!("(process {})", std::process::id());
    assert!(
        matches!(&refused, Refusal::PortTaken { listen, holder: Some(holder), .. }
            if *listen == taken && holder.ends_with(&by_us)),
        "{refused:?}"
    );
    assert!(get(([127, 0, 0, 1], free).into(), "/").is_err());
    assert_eq!(get(([127, 0, 0, 1], kept).into(), "/").unwrap().status, 200);
    drop(holder);
    world.gateway.set_table(offered.clone()).unwrap();
    assert_eq!(get(([127, 0, 0, 1], free).into(), "/").unwrap().status, 200);
    assert!(get(([127, 0, 0, 1], kept).into(), "/").is_err());
    offered.stack = "other".parse().unwrap();
    let refused = refusal(&world, offered);
    assert!(
        matches!(&refused, Refusal::PortTaken { holder: Some(holder), .. }
            if holder == "endpoint.new of stack shop"),
        "{refused:?}"
    );
}

#[test]
fn older_and_impossible_tables_are_refused() {
    let Some(world) = World::start("older_tables_are_refused") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    let older = table(routes.clone(), vec![]);
    let present = table(routes.clone(), vec![]);
    let first = world.gateway.set_table(present.clone()).unwrap();
    assert_eq!(world.gateway.set_table(present.clone()).unwrap(), first);
    assert!(matches!(refusal(&world, older), Refusal::EpochTooOld { .. }));
    let mut other = present.clone();
    other.endpoints[0].backends.clear();
    assert!(matches!(refusal(&world, other), Refusal::EpochTaken { .. }));
    let mut nowhere = table(routes.clone(), vec![]);
    nowhere.endpoints[0].backends[0].network = "gone-1".parse().unwrap();
    assert!(matches!(refusal(&world, nowhere), Refusal::NamespaceMissing { .. }));
    let mut foreign = table(routes, vec![]);
    foreign.endpoints[0].listen = "192.0.2.1:80".parse().unwrap();
    assert!(matches!(refusal(&world, foreign), Refusal::AddressNotAvailable { .. }));
    assert_eq!(world.gateway.status().unwrap().tables, [present]);
    assert_eq!(get(first.bound[0].address, "/").unwrap().status, 200);
}

#[test]
fn without_an_instance_clients_are_told_to_come_back() {
    let Some(world) = World::start("without_an_instance") else { return };
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![])];
    let address = world.gateway.set_table(table(routes, vec![])).unwrap().bound[0].address;
    let mut client = Http1::connect(address).unwrap();
    let answer = client.get("/").unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = vec![endpoint("web", 0, Protocol::Http, vec![backend.route.clone()])];
    world.gateway.set_table(table(routes, vec![])).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "web-1");
    let counters = &world.gateway.status().unwrap().endpoints[0].counters;
    assert_eq!((counters.requests, counters.errors), (2, 1));
    assert_eq!(counters.responses, [0, 1, 0, 0, 1]);
    assert_eq!(counters.latency_us_log2.iter().sum::<u64>(), 2);
}

#[test]
fn a_listener_can_widen_to_all_addresses() {
    let Some(world) = World::start("a_listener_can_widen") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let narrow = endpoint("web", free_port(), Protocol::Http, vec![backend.route.clone()]);
    let mut wide = narrow.clone();
    wide.listen.set_ip([0, 0, 0, 0].into());
    let at = narrow.listen;
    world.gateway.set_table(table(vec![narrow.clone()], vec![])).unwrap();
    let mut client = Http1::connect(at).unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    world.gateway.set_table(table(vec![wide], vec![])).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(get(at, "/").unwrap().status, 200);
    let last = client.get("/").unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(client.get("/").ok().map(|answer| answer.status), None);
    world.gateway.set_table(table(vec![narrow], vec![])).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(get(at, "/").unwrap().status, 200);
}
