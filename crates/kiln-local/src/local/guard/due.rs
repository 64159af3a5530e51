//! What is to be looked at because something was told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a network is let be that changes, as one change seldom comes alone, and how long it is
/// from one look at it to the next.
const SETTLE: Duration = Duration::from_millis(20);
const APART: Duration = Duration::from_millis(150);

/// Programs that are looked at one by one: so many at once, and so many a second.
const EXECUTED: u32 = 100;

/// See the module.
#[derive(Default)]
pub(super) struct Due {
    /// Processes that have executed a program.
    pub(super) executed: Vec<i32>,
    /// Processes that are traced, and by whom.
    pub(super) traced: Vec<(i32, i32)>,
    /// Instances whose mounts have changed.
    pub(super) mounts: BTreeSet<String>,
    /// Instances whose control groups were written to.
    pub(super) groups: BTreeSet<String>,
    /// Processes were moved somewhere.
    pub(super) moves: Moment,
    /// Programs were executed too fast to be looked at one by one: all processes are.
    pub(super) strangers: Moment,
    /// Settings of some network were written.
    pub(super) settings: Moment,
    /// Instances whose network has changed, and when to look.
    pub(super) interiors: Moments,
    /// The same of networks.
    pub(super) networks: Moments,
    bucket: Bucket,
}

impl Due {
    /// Notes a program that was executed; whether it will be looked at.
    pub(super) fn execute(&mut self, pid: i32, now: Instant) -> bool {
        let looks = self.bucket.take(now);
        if looks {
            self.executed.push(pid);
        }
        looks
    }

    /// When the next look is due that was put off.
    pub(super) fn next(&self) -> Option<Instant> {
        let moments = [self.moves.at, self.strangers.at, self.settings.at];
        let all = moments.into_iter().chain([self.interiors.next(), self.networks.next()]);
        all.flatten().min()
    }
}

/// Something that is looked at some time after it was told of, and not too often.
#[derive(Default, Clone, Copy)]
pub(super) struct Moment {
    at: Option<Instant>,
    last: Option<Instant>,
}

impl Moment {
    /// Notes that it is to be looked at, at once or `apart` from the last time.
    pub(super) fn note(&mut self, now: Instant, settle: Duration, apart: Duration) {
        let soonest = self.last.map_or(now, |last| last + apart);
        self.at.get_or_insert_with(|| soonest.max(now + settle));
    }

    /// Whether it is to be looked at now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            (self.at, self.last) = (None, Some(now));
        }
        due
    }
}

/// Several of that sort, by name.
#[derive(Default)]
pub(super) struct Moments(BTreeMap<String, Moment>);

impl Moments {
    pub(super) fn note(&mut self, id: String, now: Instant) {
        self.0.entry(id).or_default().note(now, SETTLE, APART);
    }

    /// Those that are to be looked at now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<String> {
        let due = self.0.iter_mut().filter_map(|(id, moment)| moment.take(now).then(|| id.clone()));
        let due = due.collect();
        self.0.retain(|_, moment| {
            moment.at.is_some() || moment.last.is_some_and(|last| last + APART > now)
        });
        due
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|moment| moment.at).min()
    }
}

/// Bounds how many are looked at.
struct Bucket {
    left: u32,
    since: Option<Instant>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { left: EXECUTED, since: None }
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Duration::from_secs(1) {
            (self.left, self.since) = (EXECUTED, Some(now));
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_looked_at_now_and_then() {
        let start = Instant::now();
        let (mut due, mut looks) = (Due::default(), 0);
        for tick in 0..1000 {
            let now = start + Duration::from_millis(tick);
            due.networks.note("front-1".to_owned(), now);
            looks += due.networks.take(now).len();
        }
        assert!((6..=8).contains(&looks), "{looks}");
        assert!(due.next().is_some());
    }

    #[test]
    fn what_is_told_once_is_looked_at_once_and_soon() {
        let (start, mut due) = (Instant::now(), Due::default());
        due.interiors.note("web-1".to_owned(), start);
        assert_eq!(due.interiors.take(start), Vec::<String>::new());
        assert_eq!(due.interiors.take(start + SETTLE), ["web-1"]);
        assert_eq!(due.interiors.take(start + SETTLE * 2), Vec::<String>::new());
    }

    #[test]
    fn no_more_programs_are_looked_at_than_the_guard_may_cost() {
        let (start, mut due) = (Instant::now(), Due::default());
        let looked = (0..10_000).filter(|pid| {
            due.execute(*pid, start + Duration::from_micros(u64::try_from(*pid).unwrap() * 300))
        });
        assert!((250..=350).contains(&looked.count()));
    }
}
