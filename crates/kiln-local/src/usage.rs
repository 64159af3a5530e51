//! What processes use, from `/proc/PID/stat` (proc(5)).

use std::fs;
use std::iter::Sum;

/// What one process, or several together, have used and use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far, milliseconds.
    pub cpu_ms: u64,
    /// Threads.
    pub tasks: u64,
    /// Resident memory, bytes.
    pub memory: u64,
}

impl Usage {
    /// What a process uses; `None` where it has ended.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Self::parse(&stat, ticks_per_second, rustix::param::page_size() as u64)
    }

    /// What these processes use together; `None` where all have ended.
    pub fn of_all(pids: impl IntoIterator<Item = i32>) -> Option<Self> {
        let uses: Vec<Self> = pids.into_iter().filter_map(Self::of).collect();
        (!uses.is_empty()).then(|| uses.into_iter().sum())
    }

    /// Fields behind the name, which may itself hold blanks and parentheses, counted from 3.
    fn parse(stat: &str, ticks_per_second: u64, page_bytes: u64) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<u64>().ok();
        let (user, system) = (field(14)?, field(15)?);
        Some(Self {
            cpu_ms: (user + system) * 1000 / ticks_per_second.max(1),
            tasks: field(20)?,
            memory: field(24)? * page_bytes,
        })
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            cpu_ms: sum.cpu_ms + one.cpu_ms,
            tasks: sum.tasks + one.tasks,
            memory: sum.memory + one.memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 100 4096 25 1 1";
        let used = Usage::parse(stat, 100, 4096).unwrap();
        assert_eq!(used, Usage { cpu_ms: 2000, tasks: 3, memory: 25 * 4096 });
        assert!(Usage::parse("42", 100, 4096).is_none());
    }

    #[test]
    fn this_process_uses_something() {
        let used = Usage::of_all([i32::try_from(std::process::id()).unwrap()]).unwrap();
        assert!(used.memory > 0 && used.tasks > 0);
        assert_eq!(Usage::of_all([]), None);
    }
}
