//! Instances that are killed under load: how soon another serves, and what it costs.
//!
//! `bench/run kills` does it twenty times with optimised programs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kiln_load::{Aim, Group, Kind, Load, Pace};
use rustix::process::Signal;

use crate::measured::{self, middle};
use crate::site::{Site, eventually, get, send, site_or_skip};

/// How long an instance takes until it listens.
const START: Duration = Duration::from_millis(50);

const STACK: &str = r#"
image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080", "--delay-start", "50"]
}

network "front" { cidr = "10.64.0.0/24" }

server "web" {
  image    = image.probe
  network  = network.front
  memory   = "16MiB"
  replicas = 3
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}
"#;

/// Clients of each kind. Each has one request at a time, so that a kill meets no more than so many.
const CLIENTS: usize = 4;

#[test]
fn a_killed_instance_is_replaced_and_costs_what_it_was_answering() {
    let site = site_or_skip!("a_killed_instance_is_replaced_and_costs_what_it_was_answering");
    site.write(STACK);
    site.must(&["apply", "--yes"]);
    let group = |kind| {
        let pace = Pace::Every(Duration::from_millis(20));
        Group { kind, clients: CLIENTS, pace, posts: true }
    };
    let groups = [Kind::Http1Kept, Kind::Http1Fresh, Kind::Http2].map(group);
    let load = Load::start(Aim { http: site.address(), tcp: None }, &groups);
    std::thread::sleep(Duration::from_millis(500));
    let kills = if measured::full() { 20 } else { 3 };
    let mut times = Vec::new();
    for _ in 0..kills {
        times.push(kill(&site));
        // More than the bound on replacements allows would not be made at once.
        std::thread::sleep(Duration::from_millis(500));
    }
    let tally = load.end();
    let repeatable: Vec<_> = tally.failures.iter().filter(|f| !f.starts_with("POST")).collect();
    println!("\n### {kills} instances killed (SIGKILL) under load\n\n| what | figure |\n|-|-|");
    println!("| until another serves, its start of {START:?} included | {} |", middle(&mut times));
    println!("| answered | {} |", tally.answered());
    println!("| failed, of those that may be repeated | {} |", repeatable.len());
    let posts = tally.failures.len() - repeatable.len();
    println!("| failed, of those that may not (in flight at a kill) | {posts} |");
    assert!(repeatable.is_empty(), "{repeatable:?}");
    assert!(posts <= kills * groups.len() * CLIENTS, "{:?}", tally.failures);
    assert!(tally.answered() > 20);
}

/// Kills one instance; how long it took until another answered in its place.
fn kill(site: &Site) -> Duration {
    let web = site.component("server", "web");
    let instances = web["instances"].as_array().unwrap();
    let ids: BTreeSet<&str> = instances.iter().map(|i| i["id"].as_str().unwrap()).collect();
    let pid = i32::try_from(instances[0]["pid"].as_i64().unwrap()).unwrap();
    let begun = Instant::now();
    send(pid, Signal::KILL);
    eventually("an answer of another instance", || {
        (0..8).any(|_| get(site.address(), "/id").is_ok_and(|(_, id)| !ids.contains(id.as_str())))
    });
    let took = begun.elapsed();
    eventually("three that are ready", || {
        site.instances("web", "state") == ["ready", "ready", "ready"]
    });
    took
}
