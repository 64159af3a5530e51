//! Loads that step, swing and wake: capacity is there in time, and the count does not flap.
//!
//! `bench/run scaling` runs the long form with optimised programs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kiln_load::{Aim, Group, Kind, Load, Pace, Tally};
use serde_json::Value;

use crate::measured::{self, middle};
use crate::site::{Site, eventually, get, site_or_skip};

/// Instances that take 50 ms until they listen.
const STACK: &str = r#"
image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080", "--delay-start", "50"]
}

network "front" { cidr = "10.65.0.0/24" }

server "web" {
  image   = image.probe
  network = network.front
  memory  = "16MiB"
  scale   = SCALE
  health  = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "10s" }
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}
"#;

/// Phases of the load.
const BEFORE: usize = 0;
const STEP: usize = 1;
const AFTER: usize = 2;

/// So many requests a second by so many clients, each on a connection that it keeps.
fn load(site: &Site, rate: u32, clients: u32) -> Load {
    let pace = Pace::Every(Duration::from_secs(1) * clients / rate);
    let clients = usize::try_from(clients).unwrap();
    let group = Group { kind: Kind::Http1Kept, clients, pace, posts: false };
    Load::start(Aim { http: site.address(), tcp: None }, &[group])
}

fn begin(site: &Site, scale: &str) {
    site.write(&STACK.replace("SCALE", scale));
    site.must(&["apply", "--yes"]);
}

fn count(site: &Site) -> usize {
    site.instances("web", "id").len()
}

#[test]
fn a_step_of_load_finds_capacity_and_its_end_costs_nothing() {
    let site = site_or_skip!("a_step_of_load_finds_capacity");
    // A tenth of it beside other tests.
    let (quiet, high, each) = if measured::full() { (50, 2000, 200) } else { (5, 200, 20) };
    let target = format!("target = {{ requests_per_second = {each} }}");
    begin(&site, &format!("{{ min = 1, max = 12, {target}, down_after = \"5s\" }}"));
    let base = load(&site, quiet, 5);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(&site), 1);
    let mut seen: BTreeSet<String> = site.instances("web", "id").into_iter().collect();
    let (begun, step) = (Instant::now(), load(&site, high - quiet, (high - quiet) / 10));
    base.phase(STEP);
    let mut reach = |wanted: usize| {
        eventually("new capacity", || {
            seen.insert(site.get("/id").1);
            seen.len() >= wanted
        });
        begun.elapsed()
    };
    let (new, all) = (reach(2), reach(10));
    std::thread::sleep(Duration::from_secs(3));
    let step = step.end();
    base.phase(AFTER);
    let ended = Instant::now();
    eventually("one again", || count(&site) == 1);
    let down = ended.elapsed();
    let base = base.end();
    println!("\n### A step from {quiet} to {high} requests/s, {each} for each instance\n");
    println!("| what | figure |\n|-|-|");
    println!("| until a new instance answers | {:.0} ms |", new.as_secs_f64() * 1e3);
    println!("| until ten do | {:.0} ms |", all.as_secs_f64() * 1e3);
    println!(
        "| until one is left, after the step (`down_after` 5 s) | {:.1} s |",
        down.as_secs_f64()
    );
    let p99 =
        |tally: &Tally, phase| tally.quantile(phase, &[Kind::Http1Kept], 0.99).as_secs_f64() * 1e3;
    let (before, during, after) = (p99(&base, BEFORE), p99(&step, BEFORE), p99(&base, AFTER));
    println!("| 99 % below: before, during, after | {before:.2}, {during:.2}, {after:.2} ms |");
    println!("| answered | {} |", base.answered() + step.answered());
    println!("| failed | {} |", base.failures.len() + step.failures.len());
    assert!(base.failures.is_empty() && step.failures.is_empty(), "{base:?} {step:?}");
}

#[test]
fn a_sawtooth_turns_the_count_no_more_than_is_said() {
    let site = site_or_skip!("a_sawtooth_turns_the_count_no_more_than_is_said");
    let (span, period, down_after) = if measured::full() { (300, 30, 10) } else { (18, 6, 2) };
    let target = "target = { requests_per_second = 20 }";
    let bounds = format!("min = 1, max = 10, {target}, down_after = \"{down_after}s\"");
    begin(&site, &format!("{{ {bounds} }}"));
    let base = load(&site, 10, 2);
    let (begun, mut answered, mut failures) = (Instant::now(), 0, Vec::new());
    while begun.elapsed() < Duration::from_secs(span) {
        // Half of the period high, half of it low.
        let high = load(&site, 160, 16);
        std::thread::sleep(Duration::from_secs(period) / 2);
        let tally = high.end();
        answered += tally.answered();
        failures.extend(tally.failures);
        std::thread::sleep(Duration::from_secs(period) / 2);
    }
    let tally = base.end();
    failures.extend(tally.failures.clone());
    answered += tally.answered();
    let sized = sized(&site);
    let falls: Vec<u64> = sized.iter().filter(|s| s.2 < s.1).map(|s| s.0).collect();
    let nearest = falls.windows(2).map(|two| two[1] - two[0]).min();
    println!(
        "\n### A load that swings between 10 and 170 requests/s for {span} s, every {period} s\n"
    );
    println!("| what | figure |\n|-|-|");
    println!("| decisions: up, down | {}, {} |", sized.len() - falls.len(), falls.len());
    let shown = nearest
        .map_or("–".to_owned(), |ms| format!("{:.1} s", Duration::from_millis(ms).as_secs_f64()));
    println!("| the shortest time between two falls, at least {down_after} s | {shown} |");
    println!("| answered, failed | {answered}, {} |", failures.len());
    assert!(!sized.is_empty() && failures.is_empty(), "{sized:?} {failures:?}");
    assert!(nearest.is_none_or(|ms| ms >= down_after * 1000), "{sized:?}");
}

/// Each decision of the journal: when, in ms of the epoch, how many before, and how many then.
fn sized(site: &Site) -> Vec<(u64, u64, u64)> {
    let text = site.must(&["events", "--json", "--tail", "100000"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    let events = document["events"].as_array().unwrap().iter();
    let sized = events.filter(|event| event["type"] == "sized");
    sized.map(|event| (stamp(&event["at"]), number(event, "was"), number(event, "count"))).collect()
}

fn number(event: &Value, name: &str) -> u64 {
    event[name].as_u64().unwrap_or_else(|| panic!("no {name} in {event}"))
}

/// The milliseconds within its day of a time such as `2026-01-01T12:00:00.250Z`.
fn stamp(at: &Value) -> u64 {
    let text = at.as_str().unwrap();
    let part = |from: usize, to: usize| text[from..to].parse::<u64>().unwrap();
    let fraction = text.get(20..23).and_then(|ms| ms.parse().ok()).unwrap_or(0);
    ((part(11, 13) * 60 + part(14, 16)) * 60 + part(17, 19)) * 1000 + fraction
}

#[test]
fn what_sleeps_answers_soon() {
    let site = site_or_skip!("what_sleeps_answers_soon");
    begin(&site, "{ min = 0, max = 3, target = { concurrency = 10 }, down_after = \"1s\" }");
    let wakes = if measured::full() { 10 } else { 1 };
    let mut times = Vec::new();
    for _ in 0..wakes {
        eventually("nobody", || count(&site) == 0);
        let begun = Instant::now();
        assert_eq!(get(site.address(), "/healthz").unwrap().0, 200);
        times.push(begun.elapsed());
    }
    println!("\n### From nothing: {wakes} times\n\n| what | figure |\n|-|-|");
    println!(
        "| the first response, of an instance that starts in 50 ms | {} |",
        middle(&mut times)
    );
}
