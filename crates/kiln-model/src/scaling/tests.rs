//! Decisions over simulated demand.

use proptest::prelude::*;

use super::*;
use crate::quantity::Amount;
use crate::spec::scale::Targets;

/// From one sample to the next.
const TICK: Millis = Millis(250);

fn requests(min: u32, max: u32, each: u64) -> Scale {
    let target = Targets { requests_per_second: Some(Amount(each * 1000)), ..Targets::default() };
    Scale { min, max, target, down_after: Millis::seconds(60), tolerance: 10 }
}

/// A server that is asked for as a test says, and whose count follows at once.
struct Server {
    scale: Scale,
    history: History,
    sample: Sample,
    wanted: u32,
    since: Timestamp,
    may_fall: bool,
    /// Every change: when, and to how many.
    changes: Vec<(Timestamp, u32)>,
    because: String,
}

impl Server {
    fn new(scale: Scale, wanted: u32) -> Self {
        let at = Timestamp(1_000_000);
        Self {
            scale,
            history: History::default(),
            sample: Sample { at, number: Some(0), ..Sample::default() },
            wanted,
            since: at,
            may_fall: true,
            changes: Vec::new(),
            because: String::new(),
        }
    }

    /// One decision after a tick in which so many requests came.
    fn tick(&mut self, came: u64) -> u32 {
        self.sample.at = self.sample.at.after(TICK);
        self.sample.arrived += came;
        self.sample.ready = self.wanted;
        let (wanted, since, may_fall) = (self.wanted, self.since, self.may_fall);
        let standing = Standing { wanted, since, may_fall };
        let decision = decide(&self.scale, &mut self.history, self.sample.clone(), standing);
        if decision.wanted != self.wanted {
            (self.wanted, self.since) = (decision.wanted, self.sample.at);
            self.changes.push((self.since, self.wanted));
            self.because = decision.because;
        }
        self.wanted
    }

    /// So many seconds at a rate.
    fn run(&mut self, seconds: u64, rate: u64) -> u32 {
        for _ in 0..seconds * 4 {
            self.tick(rate / 4);
        }
        self.wanted
    }
}

#[test]
fn a_step_is_answered_within_a_second_with_all_that_it_needs() {
    let mut server = Server::new(requests(1, 20, 200), 1);
    server.run(30, 50);
    assert_eq!((server.wanted, server.changes.len()), (1, 0));
    let step = server.sample.at;
    server.run(1, 2000);
    assert_eq!(server.wanted, 10);
    assert_eq!(server.because, "1,810 requests/s over 200 each");
    let full = server.changes.last().unwrap().0;
    assert!(full.since(step) <= Millis(500), "{}", full.since(step));
    server.run(120, 2000);
    assert_eq!(server.wanted, 10, "and stays");
}

#[test]
fn it_goes_down_late_and_to_what_was_enough() {
    let mut server = Server::new(requests(1, 20, 200), 10);
    server.run(120, 2000);
    server.run(65, 50);
    assert_eq!(server.wanted, 10);
    server.run(10, 50);
    assert_eq!(server.wanted, 1);
    assert_eq!(server.changes.len(), 1);
}

#[test]
fn nothing_goes_during_a_rollout_and_more_may_come() {
    let mut server = Server::new(requests(1, 20, 200), 5);
    server.may_fall = false;
    assert_eq!(server.run(300, 50), 5);
    assert_eq!(server.run(2, 2000), 10);
}

#[test]
fn from_nothing_the_first_request_is_enough_and_to_nothing_silence_is() {
    let mut server = Server::new(requests(0, 20, 200), 0);
    assert_eq!(server.run(10, 0), 0);
    server.sample.waiting = 1;
    assert_eq!(server.tick(1), 1);
    assert_eq!(server.because, "it is asked for");
    server.sample.waiting = 0;
    assert_eq!(server.run(69, 0), 1);
    assert_eq!(server.run(4, 0), 0, "seventy seconds after the last request");
    assert_eq!(server.reason_of_last(), "nobody asks for it");
    // A request now and then is no silence.
    server.tick(1);
    for _ in 0..10 {
        server.run(20, 0);
        server.tick(1);
        assert_eq!(server.wanted, 1);
    }
}

impl Server {
    fn reason_of_last(&self) -> &str {
        &self.because
    }
}

#[test]
fn what_waits_and_what_is_refused_is_asked_for_too() {
    let target = Targets { concurrency: Some(Amount(10_000)), ..Targets::default() };
    let mut server = Server::new(Scale { target, ..requests(1, 50, 1) }, 2);
    (server.sample.in_flight, server.sample.waiting) = (20, 60);
    assert_eq!(server.run(2, 100), 8);
    let target = Targets { concurrency: Some(Amount(10_000)), ..Targets::default() };
    let mut server = Server::new(Scale { target, ..requests(1, 50, 1) }, 2);
    server.sample.in_flight = 20;
    for _ in 0..12 {
        // Nine in ten are refused.
        server.sample.refused += 90;
        server.tick(100);
    }
    assert_eq!(server.wanted, 20, "ten times what it answers");
}

#[test]
fn the_largest_of_several_targets_counts() {
    let mut scale = requests(1, 50, 100);
    scale.target.cpu = Some(crate::quantity::MilliCpu(500));
    scale.target.memory = Some(crate::quantity::Bytes::mib(100));
    let mut server = Server::new(scale, 1);
    server.sample.memory = 390 << 20;
    for _ in 0..20 {
        server.sample.cpu_us += 1_500_000 / 4;
        server.tick(200 / 4);
    }
    assert_eq!(server.wanted, 4, "two for requests, three for processors, four for memory");
    assert_eq!(server.because, "390MiB of memory over 100MiB each");
}

#[test]
fn latency_goes_up_by_proportion_and_down_by_a_tenth() {
    let target = Targets { latency: Some(Millis(200)), ..Targets::default() };
    let mut server = Server::new(Scale { target, ..requests(1, 50, 1) }, 4);
    server.sample.latency = vec![0; 32];
    for _ in 0..16 {
        server.sample.latency[19] += 25;
        server.tick(25);
    }
    // Half a second: from 262 to 524 ms.
    assert!((9..=40).contains(&server.wanted), "{}", server.wanted);
    for _ in 0..4 * 200 {
        server.sample.latency[14] += 25;
        server.tick(25);
    }
    let high = server.changes.iter().map(|(_, count)| *count).max().unwrap();
    assert!(server.wanted < high && server.wanted >= high / 2, "{} of {high}", server.wanted);
}

#[test]
fn a_number_that_fails_holds_the_count() {
    let number = crate::spec::scale::NumberTarget {
        command: vec!["/queue".to_owned()],
        value: Amount(10_000),
        user: None,
    };
    let target = Targets { number: Some(number), ..Targets::default() };
    let mut server = Server::new(Scale { target, ..requests(0, 50, 1) }, 0);
    server.sample.number = Some(95_000);
    assert_eq!(server.run(1, 0), 10);
    server.sample.number = None;
    assert_eq!(server.run(300, 0), 10, "held");
    server.sample.number = Some(0);
    assert_eq!(server.run(75, 0), 0);
}

#[test]
fn a_sawtooth_turns_the_count_at_most_twice_in_the_time_that_a_fall_takes() {
    for (period, down_after) in [(20, 60), (60, 60), (120, 60), (90, 30), (30, 10)] {
        let mut scale = requests(1, 20, 200);
        scale.down_after = Millis::seconds(down_after);
        let mut server = Server::new(scale, 1);
        for tick in 0..300 * 4 {
            let phase = tick % (period * 4);
            server.tick((50 + 1950 * phase / (period * 4)) / 4);
        }
        let falls = falls(&server.changes, 1);
        assert!(falls.len() as u64 <= 300 / down_after, "{falls:?} with a period of {period}");
        if period < down_after {
            assert!(falls.is_empty(), "what comes back in time meets what is there: {falls:?}");
        }
    }
}

/// When the count fell.
fn falls(changes: &[(Timestamp, u32)], first: u32) -> Vec<Timestamp> {
    let before = std::iter::once(first).chain(changes.iter().map(|(_, count)| *count));
    let pairs = before.zip(changes);
    pairs.filter(|(before, (_, after))| after < before).map(|(_, (at, _))| *at).collect()
}

proptest! {
    #[test]
    fn the_bounds_hold_and_falls_are_apart(
        (min, more) in (0_u32..5, 0_u32..30),
        start in 0_u32..40,
        each in 1_u64..500,
        tolerance in 0_u32..50,
        down_after in 1_u64..30,
        demand in prop::collection::vec((0_u64..5_000, 1_u64..40), 1..30),
    ) {
        let mut scale = requests(min, (min + more).max(1), each);
        (scale.tolerance, scale.down_after) = (tolerance, Millis::seconds(down_after));
        let first = scale.clamp(start);
        let mut server = Server::new(scale.clone(), first);
        for (came, ticks) in demand {
            for _ in 0..ticks {
                let wanted = server.tick(came);
                prop_assert!((scale.min..=scale.max).contains(&wanted), "{wanted}");
            }
        }
        let falls = falls(&server.changes, first);
        for pair in falls.windows(2) {
            prop_assert!(pair[1].since(pair[0]) >= scale.down_after, "{falls:?}");
        }
    }

    #[test]
    fn more_demand_never_wants_fewer(
        wanted in 0_u32..20,
        demand in prop::collection::vec((0_u64..2_000, 0_u64..500), 8..120),
    ) {
        let at = |more: bool| {
            let mut server = Server::new(requests(0, 1_000, 100), wanted);
            // The count is held, so that both meet the same server.
            let mut last = 0;
            for (came, extra) in &demand {
                last = server.tick(came + if more { *extra } else { 0 });
                (server.wanted, server.since) = (wanted, Timestamp(0));
            }
            last
        };
        prop_assert!(at(true) >= at(false));
    }
}
