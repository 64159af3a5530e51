//! Tests of an image: what must hold in a throw-away instance of it before it is admitted.
//!
//! Who can start an instance on a machine implements [`Laboratory`]. Here is what is the same for
//! all: the reports, and that several tests run at once, each within its deadline.

mod report;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use kiln_model::spec::image::ImageTest;

use crate::progress::{Event, Progress};
use crate::store::ImageFiles;

pub use report::{CheckReport, INTERRUPTED, TestReport, describe};

/// The most tests that run at once, whatever the machine.
const MOST_AT_ONCE: usize = 8;

/// Starts throw-away instances and looks at them.
pub trait Laboratory: Sync {
    /// Runs one test to its end, or to its deadline. Whatever goes wrong is in the report. When
    /// this returns, nothing of the instance is left. It returns soon after `stop` is set.
    fn try_out(&self, image: &ImageFiles, test: &ImageTest, stop: &Stop) -> TestReport;
}

/// Says that what runs is to come to an end; set by whoever gets a signal.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    set: AtomicBool,
    /// By how many what runs must be brought to an end before the program may end.
    held: AtomicUsize,
}

/// While this is there, something runs that must be brought to an end.
#[derive(Debug)]
pub struct Held(Stop);

impl Stop {
    /// Lets everything that knows of this come to an end.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::Relaxed);
    }

    /// Whether to come to an end.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Relaxed)
    }

    /// Says that something runs that must not be left behind, until what is given is dropped.
    pub fn hold(&self) -> Held {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        Held(self.clone())
    }

    /// Whether something runs that must not be left behind.
    pub fn is_held(&self) -> bool {
        self.0.held.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `tests` of `image`, several at once, and gives their reports in the same order. A test
/// that was not begun when `stop` was set is reported as not passed.
pub fn run_tests(
    laboratory: &dyn Laboratory,
    image: &ImageFiles,
    tests: &[ImageTest],
    progress: &dyn Progress,
    stop: &Stop,
) -> Vec<TestReport> {
    let _held = stop.hold();
    let ahead: Mutex<VecDeque<usize>> = Mutex::new((0..tests.len()).collect());
    let reports = Mutex::new(vec![None; tests.len()]);
    let next = || ahead.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        while let Some(index) = next() {
            let test = &tests[index];
            progress.event(Event::Test { test: &test.name, passed: None });
            let report = if stop.is_set() {
                TestReport::refused(test, INTERRUPTED)
            } else {
                laboratory.try_out(image, test, stop)
            };
            progress.event(Event::Test { test: &test.name, passed: Some(report.passed) });
            reports.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(report);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Most of a test's time is waiting for its program.
    let workers = (cores * 2).min(MOST_AT_ONCE).min(tests.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
