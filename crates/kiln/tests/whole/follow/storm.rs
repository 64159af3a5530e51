//! Thirty commits at random times under load, six of them bad, and a rollback in the middle.

use std::time::{Duration, Instant};

use super::{followed, following, result_of, served, stack, unhealthy, wait};
use crate::load::Load;
use crate::site::site_or_skip;

#[test]
fn thirty_commits_under_load_drop_no_request() {
    let site = site_or_skip!("thirty_commits_under_load");
    let repository = followed(&site, &[]);
    let load = Load::start(site.address(), 6);
    // A linear congruential generator (Knuth's MMIX): the pauses are the same in every run.
    let mut random: u64 = 7;
    let (mut bad, mut slowest) = (Vec::new(), Duration::ZERO);
    for number in 1..=30_u32 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((random >> 33) % 300));
        match number {
            4 | 13 | 22 => bad.push(repository.commit("server \"web\" {", "Syntax")),
            9 | 18 | 27 => bad.push(repository.commit(&unhealthy(&site, "1s"), "Unhealthy")),
            number => {
                let release = format!("r{number}");
                let begun = Instant::now();
                repository.commit(&stack(&site, &release), &release);
                served(&site, &release);
                slowest = slowest.max(begun.elapsed());
            }
        }
        if number == 15 {
            hold_and_resume(&site, &repository);
        }
    }
    load.stop();
    println!("slowest from push to served: {slowest:?}");
    for commit in &bad {
        let following = following(&site);
        let results = following["results"].as_array().unwrap();
        let of_it = results.iter().find(|r| r["commit"] == commit.as_str());
        // A newer commit may have taken the place of one that was not looked at yet.
        let outcome = of_it.map_or("passed over", |r| r["outcome"].as_str().unwrap());
        assert!(["given_up", "superseded", "passed over"].contains(&outcome), "{outcome}");
    }
    assert_eq!(site.status()["healthy"], true);
}

/// A rollback holds while a commit comes, until it is resumed.
fn hold_and_resume(site: &crate::site::Site, repository: &super::repository::Repository) {
    result_of(site, &repository.head(), "deployed");
    let before = site.get("/").1;
    site.must(&["rollback", "--yes"]);
    let held = site.get("/").1;
    assert_ne!(held, before);
    let commit = repository.commit(&stack(site, "held"), "Held");
    wait("it is seen", site, || following(site)["commit"] == commit.as_str());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(site.get("/").1, held);
    site.must(&["resume"]);
    served(site, "held");
}
