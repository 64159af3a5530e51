//! What sealing finds, and how changes cascade.

use super::*;
use crate::canonical::BuiltFrom;
use crate::fixture::{endpoint, image, network, server};
use crate::spec::image::{Base, Step};

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

/// An image on another, or on nothing, that may take a file from a third.
fn image_on(name: &str, base: Option<&str>, takes: Option<&str>) -> Spec {
    let mut spec = image(name, "none");
    let Body::Image(image) = &mut spec.body else { unreachable!("it is an image") };
    let recipe = &mut image.identity.recipe;
    let reference = |name: &str| BuiltFrom::from(ComponentId::new(Kind::Image, name));
    if let Some(base) = base {
        recipe.base = Base::Image { image: reference(base) };
    }
    recipe.steps.extend(takes.map(|from| Step::Take {
        image: reference(from),
        from: "/app".to_owned(),
        to: "/app".to_owned(),
        owner: None,
        mode: None,
    }));
    spec
}

#[test]
fn images_come_after_those_that_they_are_built_from() {
    // `a` stands on `m` and takes from `z`, which stands on `y`.
    let specs = |entrypoint: &str| {
        let mut y = image_on("y", None, None);
        let Body::Image(image) = &mut y.body else { unreachable!("it is an image") };
        image.identity.recipe.entrypoint = vec![entrypoint.to_owned()];
        let others = [("a", Some("m"), Some("z")), ("m", None, None), ("z", Some("y"), None)];
        let mut specs: Vec<Spec> =
            others.iter().map(|(name, base, takes)| image_on(name, *base, *takes)).collect();
        specs.push(y);
        specs
    };
    let by_id = specs("/y").into_iter().map(|spec| (spec.id.clone(), Arc::new(spec))).collect();
    let order: Vec<String> =
        building_order(&by_id).iter().map(|id| id.name.clone()).collect::<Vec<_>>();
    assert_eq!(order.len(), 4);
    let at = |name: &str| order.iter().position(|n| n == name).unwrap();
    assert!(at("m") < at("a") && at("z") < at("a") && at("y") < at("z"), "{order:?}");

    let (before, after) = (seal(specs("/y")).unwrap(), seal(specs("/other")).unwrap());
    let differs = |name: &str| {
        let id = ComponentId::new(Kind::Image, name);
        before[&id].digest != after[&id].digest
    };
    assert!(differs("y") && differs("z") && differs("a") && !differs("m"));
}

#[test]
fn images_on_each_other_are_a_cycle() {
    let errors = seal(vec![image_on("a", Some("b"), None), image_on("b", None, Some("a"))]);
    let expected = "a cycle of references: image.a -> image.b -> image.a";
    assert_eq!(errors.unwrap_err()[0].to_string(), expected);
}
