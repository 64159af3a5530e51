//! Replacements in a row under load of every kind: nothing fails, nothing is reset, and answers
//! take hardly longer than in quiet times.
//!
//! A short run belongs to the tests. `bench/run replacements` makes it 200 with optimised programs
//! and prints how long answers took; `KILN_REPLACEMENTS` says how many.

use std::time::{Duration, Instant};

use kiln_load::{Aim, Group, Kind, Load, Pace, Tally};

use crate::load::none_failed;
use crate::measured;
use crate::site::{Site, free_port, site_or_skip, told};

const STACK: &str = r#"
variable "release" { default = "first" }
variable "replicas" { default = 3 }

image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080", "--echo", "9000"]
}

network "front" { cidr = "10.63.0.0/24" }

server "web" {
  image    = image.probe
  network  = network.front
  args     = ["--body", var.release]
  memory   = "16MiB"
  replicas = var.replicas
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
  rollout  = ROLLOUT
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}

endpoint "raw" {
  listen   = "127.0.0.1:RAW"
  to       = server.web
  port     = 9000
  protocol = "tcp"
}
"#;

/// The ways of replacing, in turn. The one without a surge needs two instances to serve on.
const ROLLOUTS: [(&str, &str, u64); 6] = [
    ("rolling, surge 1", r#"{ watch = "200ms" }"#, 1),
    ("blue_green", r#"{ strategy = "blue_green", watch = "200ms" }"#, 1),
    ("rolling, surge 5, unavailable 1", r#"{ surge = 5, unavailable = 1, watch = "200ms" }"#, 2),
    (
        "canary",
        r#"{ strategy = "canary", watch = "200ms",
             steps = [{ weight = 10, hold = "200ms" }, { weight = 50, hold = "200ms" }] }"#,
        1,
    ),
    ("rolling, unavailable 1", r#"{ surge = 0, unavailable = 1, watch = "200ms" }"#, 2),
    ("blue_green, no overlap", r#"{ strategy = "blue_green", overlap = false, watch = "0s" }"#, 1),
];

/// Phases of the load.
const QUIET: usize = 0;
const REPLACING: usize = 1;

/// How long the quiet time before and after lasts in a measured run.
const LONG: Duration = Duration::from_secs(15);

/// What stands in the table of a measured run, beside each kind.
const REQUESTS: [Kind; 3] = [Kind::Http1Kept, Kind::Http1Fresh, Kind::Http2];

/// The stack with a way of replacing, whose plain TCP is at a port of the host.
pub fn stack(rollout: &str, raw: u16) -> String {
    STACK.replace("ROLLOUT", rollout).replace("RAW", &raw.to_string())
}

/// All kinds at once, about 600 requests and messages a second; half of the requests may not be
/// repeated.
pub fn every_kind(aim: Aim) -> Load {
    let pace = Pace::Every(Duration::from_millis(20));
    let groups = Kind::ALL.map(|kind| {
        let clients = if REQUESTS.contains(&kind) { 3 } else { 2 };
        Group { kind, clients, pace, posts: true }
    });
    Load::start(aim, &groups)
}

#[test]
fn replacements_in_a_row_fail_nothing() {
    let site = site_or_skip!("replacements_in_a_row_fail_nothing");
    let asked = std::env::var("KILN_REPLACEMENTS").ok().map(|n| n.parse::<usize>().unwrap());
    let (most, rest, usual) = if measured::full() || asked.is_some() {
        (20, LONG, 200)
    } else {
        (6, Duration::from_secs(1), 12)
    };
    let replacements = asked.unwrap_or(usual);
    let raw = free_port();
    site.write(&stack("{}", raw));
    site.must(&["apply", "--yes"]);
    let load = every_kind(Aim { http: site.address(), tcp: Some(([127, 0, 0, 1], raw).into()) });
    std::thread::sleep(rest);
    load.phase(REPLACING);
    let begun = Instant::now();
    // A linear congruential generator (Knuth's MMIX): the counts are the same in every run.
    let mut random: u64 = 7;
    for number in 0..replacements {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (name, rollout, least) = ROLLOUTS[number % ROLLOUTS.len()];
        let count = least + (random >> 33) % (most - least + 1);
        site.write(&stack(rollout, raw));
        replace(&site, number, count, name);
        let failures = load.failures();
        assert!(failures.is_empty(), "{name}, {count} instances: {failures:?}");
    }
    let took = begun.elapsed();
    load.phase(QUIET);
    std::thread::sleep(rest);
    let tally = load.end();
    show(&tally, replacements, took);
    none_failed(&tally);
}

/// One release of so many instances.
fn replace(site: &Site, number: usize, count: u64, name: &str) {
    let (release, replicas) = (format!("release=r{number}"), format!("replicas={count}"));
    let begun = Instant::now();
    let output = site.run(&["apply", "--yes", "--var", &release, "--var", &replicas]);
    assert!(output.status.success(), "{name}, {count} instances: {}", told(&output));
    println!("{number}: {name}, {count} instances: {:?}", begun.elapsed());
    assert_eq!(site.get("/"), (200, format!("r{number}")), "{name}");
}

/// The table for `docs/measurements.md`.
fn show(tally: &Tally, replacements: usize, took: Duration) {
    println!("\n### {replacements} replacements in a row, in {} s\n", took.as_secs());
    println!("| what | quiet: answered | 99 % below | replacing: answered | 99 % below | ratio |");
    println!("|-|-|-|-|-|-|");
    let all = ("all requests", &REQUESTS[..]);
    let kinds = Kind::ALL.map(|kind| (kind.name(), vec![kind]));
    let rows = kinds.iter().map(|(name, kinds)| (*name, &kinds[..])).chain([all]);
    for (name, kinds) in rows {
        let count = |phase| kinds.iter().map(|kind| tally.count(phase, *kind)).sum::<usize>();
        let time = |phase| tally.quantile(phase, kinds, 0.99).as_secs_f64() * 1e3;
        println!(
            "| {name} | {} | {:.2} ms | {} | {:.2} ms | {:.2} |",
            count(QUIET),
            time(QUIET),
            count(REPLACING),
            time(REPLACING),
            time(REPLACING) / time(QUIET)
        );
    }
    let (failed, reopened) = (tally.failures.len(), tally.reopened);
    println!("\nfailed: {failed}; connections that were ended by their protocol: {reopened}");
}
