//! A stack that is busy and sound: nothing is found that is not there.

use std::time::{Duration, Instant};

use super::range::{Range, STACK};
use crate::load::Load;
use crate::site::site_or_skip;

/// How long it is kept busy; `KILN_HEALTHY_SECONDS` says otherwise.
fn long() -> Duration {
    let told = std::env::var("KILN_HEALTHY_SECONDS").ok();
    Duration::from_secs(told.and_then(|seconds| seconds.parse().ok()).unwrap_or(8))
}

#[test]
fn a_busy_stack_that_is_sound_raises_no_alarm() {
    let site = site_or_skip!("a_busy_stack_that_is_sound_raises_no_alarm");
    let range = Range::new(site);
    let load = Load::start(range.site.address(), 4);
    let (until, mut turns) = (Instant::now() + long(), 0);
    while Instant::now() < until {
        turns += 1;
        let body = format!("args = [\"--body\", \"{turns}\"]\n  memory   = \"32MiB\"");
        range.site.write(&STACK.replace("memory   = \"32MiB\"", &body));
        range.site.must(&["apply", "--yes"]);
        range.site.must(&["scale", "web=5", "--yes"]);
        range.site.must(&["scale", "web=3", "--yes"]);
        let _ = range.site.get("/fork?n=20");
    }
    load.stop();
    let report = range.site.must(&["status", "--guard", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let found = report["sources"].as_array().unwrap().iter();
    let found: u64 = found.map(|source| source["found"].as_u64().unwrap()).sum();
    println!("{turns} turns, {found} found, {} % of a processor", report["cpu_percent"]);
    assert_eq!(found, 0, "{report}");
}
