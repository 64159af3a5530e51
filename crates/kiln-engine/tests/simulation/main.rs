//! The engine under simulation: a target, a gateway, a clock and a store that obey one seed,
//! end the engine at any point, and check the laws while it runs and after.
//!
//! A failing seed is reproduced by one line, which the failure prints:
//!
//! ```text
//! KILN_SEED=17 cargo test -p kiln-engine --test simulation every_seed -- --nocapture
//! ```

#![allow(unreachable_pub, reason = "a test program: its modules are public to each other only")]
#![allow(clippy::unwrap_used, reason = "a test program: a failed expectation is a panic")]

mod data;
mod flaw;
mod laws;
mod rng;
mod run;
mod scenario;
mod store;
mod target;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use flaw::Flaw;

/// A run of a seed.
type Run = fn(u64, Flaw) -> run::RunOutcome;

/// Seeds of the normal run.
const SEEDS: u64 = 10_000;

/// The same of stacks with a database.
const DATABASE_SEEDS: u64 = 3_000;

/// Seeds within which each planted bug must be found.
const SEEDS_PER_FLAW: u64 = 400;

#[test]
fn every_seed_keeps_the_laws() {
    keeps_the_laws("every_seed", run::run, SEEDS);
}

#[test]
fn a_database_keeps_the_laws() {
    keeps_the_laws("a_database", data::run, DATABASE_SEEDS);
}

fn keeps_the_laws(name: &str, run: Run, seeds: u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("KILN_SEED") {
        let outcome = run(seed, Flaw::None);
        println!("{}", outcome.trace.join("\n"));
        assert_eq!(outcome.violations, Vec::<String>::new());
        return;
    }
    let failures = search(run, 0..number("KILN_SEEDS").unwrap_or(seeds), Flaw::None, 5);
    assert!(failures.is_empty(), "{}", report(name, &failures));
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 0..20 {
        for run in [run::run as Run, data::run] {
            assert_eq!(run(seed, Flaw::None).trace, run(seed, Flaw::None).trace);
        }
    }
}

#[test]
fn the_simulated_target_is_a_target() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let web = kiln_model::fixture::server("web").spec();
    let subject = kiln_engine::conformance::Subject {
        stack: "shop".parse().unwrap(),
        server: web.as_server().unwrap().clone(),
        port: 8080,
        image: kiln_model::digest::Digest::of(b"web"),
        listen: "127.0.0.1:8080".parse().unwrap(),
    };
    runtime.block_on(async {
        // A seed in which nothing fails by chance.
        let shared = world::Shared::new(3, Flaw::None);
        kiln_engine::conformance::target(&target::SimTarget(shared), &subject).await;
    });
}

macro_rules! finds {
    ($($name:ident: $run:expr, $flaw:expr;)*) => {$(
        #[test]
        fn $name() {
            let failures = search($run, 0..SEEDS_PER_FLAW, $flaw, 1);
            assert!(!failures.is_empty(), "no seed found {:?}", $flaw);
            println!("{:?} found: {}", $flaw, report("every_seed", &failures));
        }
    )*};
}

finds! {
    a_skipped_sync_is_found: run::run, Flaw::SkippedSync;
    a_destroy_before_the_route_is_found: run::run, Flaw::DestroyBeforeRoute;
    a_forgotten_deadline_is_found: run::run, Flaw::ForgottenDeadline;
    a_lost_event_is_found: run::run, Flaw::LostEvent;
    a_doubled_create_is_found: run::run, Flaw::DoubledCreate;
    a_standby_promoted_blindly_is_found: data::run, Flaw::PromotedBlindly;
    an_heir_that_lacks_something_is_found: data::run, Flaw::AnyHeir;
    a_fence_that_leaks_is_found: data::run, Flaw::LeakyFence;
    a_volume_held_twice_is_found: data::run, Flaw::ForgottenHolder;
    a_member_that_is_forgotten_is_found: data::run, Flaw::ForgottenMember;
    a_head_that_is_lost_is_found: data::run, Flaw::LostHead;
}

/// Runs seeds on all cores until so many have failed.
fn search(
    run: Run,
    seeds: std::ops::Range<u64>,
    flaw: Flaw,
    enough: usize,
) -> Vec<(u64, Vec<String>)> {
    let next = Arc::new(AtomicU64::new(seeds.start));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().unwrap().len() >= enough {
                        return;
                    }
                    let violations = run(seed, flaw).violations;
                    if !violations.is_empty() {
                        failures.lock().unwrap().push((seed, violations));
                    }
                }
            });
        }
    });
    let mut failures = failures.lock().unwrap().clone();
    failures.sort();
    failures
}

fn report(name: &str, failures: &[(u64, Vec<String>)]) -> String {
    let reproduce = |seed: &u64| {
        format!(
            "KILN_SEED={seed} cargo test -p kiln-engine --test simulation {name} -- --nocapture"
        )
    };
    let lines = failures.iter().map(|(seed, violations)| {
        format!("seed {seed}: {}\n  {}", violations.join("; "), reproduce(seed))
    });
    lines.collect::<Vec<_>>().join("\n")
}
