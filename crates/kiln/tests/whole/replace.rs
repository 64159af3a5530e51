//! Releases, rollbacks and cascades under load: everything is new, and nobody notices.

use rustix::process::Signal;

use crate::load::Load;
use crate::site::{eventually, send, site_or_skip};

/// Three web servers behind an endpoint, and an API server that they call.
pub const SHOP: &str = r#"
variable "release" { default = "v1" }
variable "cidr" { default = "10.60.0.0/24" }

image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  file "/release" { content = var.release }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080"]
}

network "front" { cidr = var.cidr }
network "back" { cidr = "10.60.8.0/24" }

server "api" {
  image   = image.probe
  network = network.back
  args    = ["--body", "api ${var.release}"]
  memory  = "32MiB"
  health  = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
}

server "web" {
  image    = image.probe
  network  = network.front
  args     = ["--body", var.release]
  env      = { API = server.api.address }
  memory   = "32MiB"
  replicas = 3
  connects = [server.api]
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}

output "url" { value = endpoint.shop.url }
"#;

#[test]
fn a_release_replaces_every_instance_and_a_rollback_brings_back_every_digest() {
    let site = site_or_skip!("a_release_replaces_every_instance");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    let load = Load::start(site.address(), 8);
    let before: Vec<Vec<String>> =
        ["id", "pid", "digest"].map(|field| site.instances("web", field)).into();
    site.must(&["apply", "--yes", "--var", "release=v2"]);
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    for (field, old) in ["id", "pid", "digest"].iter().zip(&before) {
        let new = site.instances("web", field);
        assert_eq!(new.len(), 3);
        assert!(new.iter().all(|value| !old.contains(value)), "{field}: {old:?} and {new:?}");
    }
    site.must(&["rollback", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    assert_eq!(site.instances("web", "digest"), before[2], "the same, byte for byte");
    assert!(site.instances("web", "id").iter().all(|id| !before[0].contains(id)));
    load.stop();
}

#[test]
fn a_changed_range_replaces_the_network_and_all_that_is_in_it() {
    let site = site_or_skip!("a_changed_range_replaces_the_network");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let load = Load::start(site.address(), 8);
    let (ids, api) = (site.instances("web", "id"), site.instances("api", "id"));
    let network = site.component("network", "front")["digest"].clone();
    site.must(&["apply", "--yes", "--var", "cidr=10.61.0.0/24"]);
    load.stop();
    assert_ne!(site.component("network", "front")["digest"], network);
    assert!(site.instances("web", "id").iter().all(|id| !ids.contains(id)));
    assert!(site.instances("web", "address").iter().all(|a| a.starts_with("10.61.0.")));
    assert_eq!(site.instances("api", "id"), api, "what is not in it stays");
}

#[test]
fn policy_and_counts_change_without_replacing_anybody() {
    let site = site_or_skip!("policy_and_counts_change_without_replacing_anybody");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let load = Load::start(site.address(), 4);
    let ids = site.instances("web", "id");
    site.must(&["scale", "--yes", "server.web=5"]);
    eventually("five instances", || site.instances("web", "id").len() == 5);
    assert!(ids.iter().all(|id| site.instances("web", "id").contains(id)));
    site.must(&["scale", "--yes", "server.web=auto"]);
    eventually("three instances", || site.instances("web", "id").len() == 3);
    site.write(&SHOP.replace("every = \"1s\"", "every = \"2s\""));
    let ids = site.instances("web", "id");
    site.must(&["apply", "--yes"]);
    assert_eq!(site.instances("web", "id"), ids);
    load.stop();
}

#[test]
fn a_killed_instance_is_replaced_without_anybody_asking() {
    let site = site_or_skip!("a_killed_instance_is_replaced");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let (ids, pids) = (site.instances("web", "id"), site.instances("web", "pid"));
    send(pids[0].parse().unwrap(), Signal::KILL);
    eventually("another instance in its place", || {
        let now = site.instances("web", "id");
        let fresh = now.iter().filter(|id| !ids.contains(id)).count();
        let states = site.instances("web", "state");
        now.len() == 3 && fresh == 1 && states.iter().all(|s| s == "ready")
    });
    assert_eq!(site.get("/").0, 200);
}
