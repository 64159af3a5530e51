//! What goes wrong is said, and leaves the old as it was.

use std::net::TcpListener;

use crate::load::Load;
use crate::replace::SHOP;
use crate::site::{site_or_skip, told};

#[test]
fn a_release_that_never_gets_healthy_is_given_up_and_the_old_one_serves() {
    let site = site_or_skip!("a_release_that_never_gets_healthy");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let load = Load::start(site.address(), 8);
    let ids = site.instances("web", "id");
    let bad =
        SHOP.replace("args     = [\"--body\", var.release]", "args = [\"--unhealthy\"]").replace(
            "  replicas = 3",
            "  replicas = 3\n  rollout  = { strategy = \"rolling\", deadline = \"2s\" }",
        );
    site.write(&bad);
    let output = site.run(&["apply", "--yes"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["server.web", "/healthz", "503", "generation 1"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(site.instances("web", "id"), ids, "the old ones were never touched");
    assert_eq!(site.status()["generation"], 1);
    load.stop();
}

#[test]
fn a_release_that_ends_at_once_shows_its_last_words() {
    let site = site_or_skip!("a_release_that_ends_at_once");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let bad = SHOP
        .replace("args     = [\"--body\", var.release]", "args = [\"--no-such-option\"]")
        .replace("replicas = 3", "replicas = 3\n  rollout = { deadline = \"2s\" }");
    site.write(&bad);
    let output = site.run(&["apply", "--yes"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("exited with status 2"), "{text}");
    assert!(text.contains("no-such-option"), "its last words are shown: {text}");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}

#[test]
fn a_program_that_is_not_there_is_refused_at_once() {
    let site = site_or_skip!("a_program_that_is_not_there");
    site.write(&SHOP.replace("entrypoint = [\"/kiln-probe\"", "entrypoint = [\"/nothing\""));
    let output = site.run(&["apply", "--yes"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/nothing"), "{text}");
    assert!(
        site.status()["components"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| { c["instances"].as_array().is_none_or(Vec::is_empty) })
    );
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_left() {
    let site = site_or_skip!("a_port_that_is_taken");
    let holder = TcpListener::bind(("127.0.0.1", site.port)).unwrap();
    site.write(SHOP);
    let output = site.run(&["apply", "--yes"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{}", site.port)), "{text}");
    assert!(text.contains("taken"), "{text}");
    drop(holder);
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/").0, 200);
}

#[test]
fn a_daemon_is_started_once_and_ends_by_itself_never() {
    let site = site_or_skip!("a_daemon_is_started_once");
    site.write(SHOP);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| site.must(&["apply", "--yes"]));
        }
    });
    assert_eq!(site.processes("serve").len(), 1);
    assert_eq!(site.status()["generation"], 1, "four that want the same get one");
}
