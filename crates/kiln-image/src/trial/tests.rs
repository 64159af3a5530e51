//! Several tests at once, in order, and an interruption.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use kiln_model::digest::Digest;
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::spec::image::Check;

use super::*;
use crate::store::ImageConfig;

fn image() -> ImageFiles {
    ImageFiles {
        digest: Digest::of(b"image"),
        erofs: "/nowhere".into(),
        erofs_digest: Digest::of(b"filesystem"),
        size_bytes: 0,
        config: ImageConfig::default(),
    }
}

fn named(name: &str) -> ImageTest {
    ImageTest {
        name: name.to_owned(),
        checks: vec![Check::StaysUp { time: Millis(1) }],
        deadline: Millis::seconds(1),
        env: BTreeMap::new(),
        command: None,
        writable: BTreeMap::new(),
        memory: Bytes::mib(1),
    }
}

/// Knows how many tests it has had, and how many at once.
#[derive(Default)]
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
    stop_after: Option<usize>,
}

impl Laboratory for Counting {
    fn try_out(&self, _: &ImageFiles, test: &ImageTest, stop: &Stop) -> TestReport {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        self.now.fetch_sub(1, Ordering::SeqCst);
        let all = self.all.fetch_add(1, Ordering::SeqCst) + 1;
        if self.stop_after.is_some_and(|most| all >= most) {
            stop.set();
        }
        TestReport { passed: true, problem: None, ..TestReport::refused(test, "") }
    }
}

#[test]
fn reports_stand_in_the_order_of_the_tests_which_run_at_once() {
    let tests: Vec<ImageTest> = (0..12).map(|n| named(&format!("test {n}"))).collect();
    let laboratory = Counting::default();
    let seen = AtomicUsize::new(0);
    let progress = |_: Event<'_>| {
        seen.fetch_add(1, Ordering::SeqCst);
    };
    let reports = run_tests(&laboratory, &image(), &tests, &progress, &Stop::default());
    let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
    let expected: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names, expected);
    assert!(reports.iter().all(|report| report.passed));
    assert_eq!(seen.load(Ordering::SeqCst), 24);
    let most = laboratory.most.load(Ordering::SeqCst);
    assert!((2..=MOST_AT_ONCE).contains(&most), "{most} at once");
}

#[test]
fn an_interruption_begins_nothing_more_and_passes_nothing_that_was_not_done() {
    let tests: Vec<ImageTest> = (0..40).map(|n| named(&n.to_string())).collect();
    let laboratory = Counting { stop_after: Some(1), ..Counting::default() };
    let reports = run_tests(&laboratory, &image(), &tests, &(), &Stop::default());
    assert_eq!(reports.len(), 40);
    let done = laboratory.all.load(Ordering::SeqCst);
    assert!(done <= MOST_AT_ONCE * 2, "{done}");
    assert_eq!(reports.iter().filter(|report| report.passed).count(), done);
    let last = reports.last().unwrap();
    assert_eq!(last.problem.as_deref(), Some(INTERRUPTED));
}
