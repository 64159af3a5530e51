//! What sealing finds, and how changes cascade.

use super::*;
use crate::fixture::{endpoint, image, network, server};

#[test]
fn a_change_of_a_network_cascades_to_its_servers() {
    let before = seal(vec![
        image("web", "v1"),
        network("front", "10.0.0.0/24"),
        server("web").spec(),
        server("api").spec(),
    ])
    .unwrap();
    let after = seal(vec![
        image("web", "v1"),
        network("front", "10.1.0.0/24"),
        server("web").spec(),
        server("api").spec(),
    ])
    .unwrap();
    let differs = |id: &str| {
        let id: ComponentId = id.parse().unwrap();
        before[&id].digest != after[&id].digest
    };
    assert!(!differs("image.web"));
    assert!(differs("network.front") && differs("server.web") && differs("server.api"));
}

#[test]
fn names_do_not_enter_digests() {
    let twins = seal(vec![
        image("web", "v1"),
        network("front", "10.0.0.0/24"),
        server("a").spec(),
        server("b").spec(),
    ])
    .unwrap();
    let digest = |id: &str| twins[&id.parse::<ComponentId>().unwrap()].digest.clone();
    assert_eq!(digest("server.a"), digest("server.b"));
}

#[test]
fn cycles_are_shown_whole() {
    let errors = seal(vec![
        image("web", "v1"),
        network("front", "10.0.0.0/24"),
        server("a").connects("b").spec(),
        server("b").connects("a").spec(),
    ])
    .unwrap_err();
    let expected = "a cycle of references: server.a -> server.b -> server.a";
    assert_eq!(errors[0].to_string(), expected);
}

#[test]
fn dangling_references_and_shared_listeners_are_all_found() {
    let errors = seal(vec![
        network("front", "10.0.0.0/24"),
        server("web").spec(),
        endpoint("one", "127.0.0.1:80", "web"),
        endpoint("two", "127.0.0.1:80", "gone"),
    ])
    .unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "server.web refers to image.web, which does not exist",
            "endpoint.two refers to server.gone, which does not exist",
            "endpoint.one and endpoint.two both listen on 127.0.0.1:80",
        ]
    );
}

#[test]
fn two_components_at_one_address_are_told_apart_by_nobody() {
    let errors = seal(vec![
        image("web", "v1"),
        network("front", "10.0.0.0/24"),
        server("a").spec(),
        server("b").spec(),
        server("web").connects("a").connects("b").spec(),
    ])
    .unwrap_err();
    let expected = "server.web connects to server.a and server.b, which both have the address \
                    10.0.0.3: give their networks different `cidr`s";
    assert_eq!(errors[0].to_string(), expected);
}
