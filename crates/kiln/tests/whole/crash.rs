//! SIGKILL of the daemon at any moment of an apply: traffic goes on, and nothing is lost,
//! orphaned or doubled.

use std::fs;
use std::time::Duration;

use kiln_local::network::set_services;
use kiln_netns::Namespace;
use rustix::process::Signal;

use crate::load::Load;
use crate::replace::SHOP;
use crate::site::{Site, eventually, site_or_skip};

/// How often the daemon is killed.
const KILLS: u64 = 100;

#[test]
fn the_daemon_can_be_killed_at_any_moment() {
    let site = site_or_skip!("the_daemon_can_be_killed_at_any_moment");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let load = Load::start(site.address(), 6);
    // A linear congruential generator (Knuth's MMIX): the moments are the same in every run.
    let mut random: u64 = 1;
    for kill in 0..KILLS {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let release = format!("release=r{}", kill % 3);
        let mut apply = site.start(&["apply", "--yes", "--var", &release]);
        std::thread::sleep(Duration::from_millis((random >> 33) % 400));
        site.signal("serve", Signal::KILL);
        // The client has lost its daemon, or was done before.
        let _ = apply.wait();
        if kill % 10 == 9 {
            settle(&site, &release);
        }
    }
    settle(&site, "release=last");
    assert_eq!(site.get("/"), (200, "last".to_owned()));
    load.stop();
}

/// Applies, which starts a daemon again, and compares what there is with what there should be.
fn settle(site: &Site, release: &str) {
    eventually("an apply that succeeds", || {
        site.run(&["apply", "--yes", "--var", release]).status.success()
    });
    let status = site.status();
    assert_eq!(status["healthy"], true, "{status}");
    // Where the release serves already, what it has replaced may still be ending.
    eventually("three web servers", || site.instances("web", "id").len() == 3);
    let mut ids = site.instances("web", "id");
    ids.extend(site.instances("api", "id"));
    ids.sort();
    eventually("no instance but those", || {
        let mut kept: Vec<String> = names(&site.root().join("run/instances"));
        kept.sort();
        kept == ids
    });
    eventually("two networks and no more", || names(&site.root().join("run/net")).len() == 2);
}

#[test]
fn what_nobody_is_led_to_outlives_the_daemon_too() {
    let site = site_or_skip!("what_nobody_is_led_to_outlives_the_daemon_too");
    let health = "health  = { tcp = { port = 8080 } }\n  rollout = { deadline = \"1s\" }";
    let worker = format!(
        "{SHOP}\nserver \"worker\" {{\n  image   = image.probe\n  network = network.back\n  \
         memory  = \"32MiB\"\n  {health}\n}}\n"
    );
    site.write(&worker);
    site.must(&["apply", "--yes"]);
    let ids = site.instances("worker", "id");
    // Older than it may take to get ready.
    std::thread::sleep(Duration::from_millis(1_100));
    site.signal("serve", Signal::KILL);
    eventually("the daemon is gone", || site.processes("serve").is_empty());
    eventually("the worker is known to be ready again", || {
        site.instances("worker", "state") == ["ready"]
    });
    assert_eq!(site.instances("worker", "id"), ids);
}

#[test]
fn rules_that_were_never_set_are_set() {
    let site = site_or_skip!("rules_that_were_never_set_are_set");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let api = site.component("server", "api")["address"].as_str().unwrap().to_owned();
    let reaches = || site.get(&format!("/get?url=http://{api}:8080/")).1.trim() == "api v1";
    assert!(reaches());
    let networks = site.root().join("run/net");
    let front = names(&networks).into_iter().find(|name| name.starts_with("front-")).unwrap();
    // As a daemon leaves it that is killed after the gateway has its table.
    set_services(&Namespace::open(networks.join(front)).unwrap(), &[]).unwrap();
    eventually("every web server reaches the API", || (0..12).all(|_| reaches()));
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn gateway_and_launcher_come_back_and_nobody_is_forgotten() {
    let site = site_or_skip!("gateway_and_launcher_come_back");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let ids = site.instances("web", "id");
    site.signal("gateway", Signal::KILL);
    eventually("an answer through another gateway", || {
        crate::site::get(site.address(), "/").is_ok_and(|(status, _)| status == 200)
    });
    site.signal("launcher", Signal::KILL);
    eventually("another launcher", || site.processes("launcher").len() == 1);
    assert_eq!(site.instances("web", "id"), ids, "instances serve on without either");
    let pids = site.instances("web", "pid");
    crate::site::send(pids[0].parse().unwrap(), Signal::KILL);
    eventually("an instance in place of the killed one", || {
        let now = site.instances("web", "id");
        now.len() == 3 && now != ids && site.instances("web", "state").iter().all(|s| s == "ready")
    });
}
