//! A storm: one thing after the other is done to instances at random. Replacements are bounded, the
//! alarm is heard of, and traffic goes on.
//!
//! `KILN_STORM_SECONDS` says how long (20), `KILN_STORM_RATE` how often a second (10).

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::range::{Range, STACK, Victim};
use crate::hook::Hook;
use crate::load::Load;
use crate::site::{eventually, send, site_or_skip};

/// Replacements within a minute, beyond which there is one a second.
const BOUND: usize = 120;

fn told(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|told| told.parse().ok()).unwrap_or(otherwise)
}

/// Numbers that look random, the same in each run (`splitmix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

/// Does one thing to one instance; whether that one does not answer any more. The instance may be
/// gone meanwhile, so nothing here needs to succeed.
fn tamper(range: &Range, dice: &mut Dice) -> bool {
    let ids: Vec<String> = range.names("instances").into_iter().collect();
    if ids.is_empty() {
        return false;
    }
    let id = ids[dice.below(ids.len())].clone();
    let record = range.site.root().join("run/instances").join(&id).join("record.json");
    let record = fs::read(record).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let pid = record.and_then(|record| i32::try_from(record["pid"].as_i64()?).ok());
    let Some(pid) = pid else { return false };
    let victim = Victim { id, pid };
    let write = |names: &[&str], text: &str| {
        if let Some(file) = range.find_group_file(&victim, names) {
            let _ = fs::write(file, text);
        }
    };
    match dice.below(10) {
        0..=2 => write(&["pids.max"], "max"),
        3..=5 => write(&["memory.memsw.limit_in_bytes", "memory.max"], "268435456"),
        6 | 7 => {
            let old = range.find_group_file(&victim, &["cpu.cfs_quota_us"]).is_some();
            write(&["cpu.cfs_quota_us", "cpu.max"], if old { "90000" } else { "90000 100000" });
        }
        8 => {
            let _ = fs::write(format!("/proc/{pid}/root/tmp/x"), "x");
            write(&["pids.max"], "60");
        }
        _ => {
            // Its number may be another's by now, but not within so short a time.
            if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.contains("probe"))
            {
                send(pid, Signal::KILL);
                return true;
            }
        }
    }
    false
}

/// Entries of the journal of one kind: when, and the entry.
fn entries(range: &Range, kind: &str) -> Vec<(u64, Value)> {
    let text = range.site.must(&["events", "--json", "--tail", "1000000"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    let entries = document["events"].as_array().unwrap().iter().filter(|it| it["type"] == kind);
    entries.map(|entry| (millis(entry["at"].as_str().unwrap()), entry.clone())).collect()
}

/// The time of day of a timestamp, counted on over one midnight.
fn millis(at: &str) -> u64 {
    let number = |from: usize, to: usize| at[from..to].parse::<u64>().unwrap();
    let seconds = number(8, 10) * 86_400 + number(11, 13) * 3600 + number(14, 16) * 60;
    (seconds + number(17, 19)) * 1000 + number(20, 23)
}

/// How many were made although so many had been within the minute before, and the last one within the
/// second before.
fn hasty(made: &[u64]) -> usize {
    let is_hasty = |n: &usize| {
        let (now, before) = (made[*n], &made[..*n]);
        let lately = before.iter().filter(|at| now - **at < 60_000).count();
        lately >= BOUND && before.last().is_some_and(|last| now - last < 990)
    };
    (0..made.len()).filter(is_hasty).count()
}

/// As many replacements as make a storm, and a few.
const ENOUGH: usize = BOUND + 5;

/// Whether an instance was made in place of another.
fn replaces(entry: &Value) -> bool {
    entry["grows"].is_null() || entry["grows"] == false
}

#[test]
fn a_storm_is_bounded_and_told_of_while_traffic_goes_on() {
    let site = site_or_skip!("a_storm_is_bounded_and_told_of_while_traffic_goes_on");
    let hook = Hook::start();
    let alarm = format!("stack {{ alarm = {{ webhook = \"{}\" }} }}\n", hook.url());
    let range = Range::with(site, &format!("{alarm}{STACK}"));
    let (seconds, rate) = (told("KILN_STORM_SECONDS", 20), told("KILN_STORM_RATE", 10));
    let load = Load::start(range.site.address(), 4);
    let (began, mut dice) = (Instant::now(), Dice(seconds));
    let (mut tampered, mut killed) = (0, 0);
    for n in 0..seconds * rate {
        let due = began + Duration::from_millis(1000 * n / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        killed += usize::from(tamper(&range, &mut dice));
        tampered += 1;
    }
    // Some more where the machine is slow, so that it is a storm at all.
    let late = || began.elapsed() > Duration::from_secs(4 * seconds);
    while !late() && entries(&range, "made").iter().filter(|(_, it)| replaces(it)).count() < ENOUGH
    {
        for _ in 0..rate {
            killed += usize::from(tamper(&range, &mut dice));
            tampered += 1;
            std::thread::sleep(Duration::from_millis(1000 / rate));
        }
    }
    let (answered, failures) = load.end();
    let made: Vec<(u64, Value)> =
        entries(&range, "made").into_iter().filter(|(_, entry)| replaces(entry)).collect();
    let times: Vec<u64> = made.iter().map(|(at, _)| *at).collect();
    let most = times
        .iter()
        .map(|now| times.iter().filter(|at| **at <= *now && now - **at < 60_000).count())
        .max()
        .unwrap_or(0);
    let alarms = hook.received().len();
    println!(
        "{tampered} tampers in {seconds} s, {killed} of them kills: {} replacements, at most {most} \
         within a minute; {answered} requests answered, {} failed; {alarms} alarms at the hook",
        made.len(),
        failures.len()
    );
    let enough = times.len() > BOUND;
    assert!(enough, "{} replacements are no storm: KILN_STORM_RATE", times.len());
    // What keeps fewer than wanted from being ready is replaced whatever the storm is.
    assert!(hasty(&times) <= killed, "{} too soon, {killed} killed", hasty(&times));
    assert!(hook.has("storm"), "{:?}", hook.received());
    assert!(hook.has("drift"));
    assert!(answered > 20 * seconds, "{answered} answered");
    // Of one that is killed, what each of the four clients has in flight.
    assert!(failures.len() <= 4 * killed, "{} failed: {:?}", failures.len(), failures.first());
    eventually("all is as it should be again", || range.is_whole());
}
