//! Counters of endpoints, their routes, and instances.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use kiln_model::analysis::{Answers, BUCKETS};

use crate::control::EndpointCounters;

/// Counters since the gateway started or the endpoint was made. Readers may see a request
/// counted before its response.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: AtomicU64,
    connections: AtomicU64,
    classes: [AtomicU64; 5],
    errors: AtomicU64,
    in_flight: AtomicU64,
    latency: [AtomicU64; BUCKETS],
    latency_us: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            classes: array::from_fn(|_| AtomicU64::new(0)),
            errors: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            latency: array::from_fn(|_| AtomicU64::new(0)),
            latency_us: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// A response with this status, whose head came after `latency`.
    pub(crate) fn response(&self, status: u16, latency: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].fetch_add(1, Relaxed);
        self.latency[bucket(latency)].fetch_add(1, Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.fetch_add(micros, Relaxed);
    }

    /// A request or connection that no instance answered.
    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// A request or connection begins; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Going {
        self.in_flight.fetch_add(1, Relaxed);
        Going(Arc::clone(self))
    }

    pub(crate) fn read(&self) -> EndpointCounters {
        EndpointCounters {
            requests: self.requests.load(Relaxed),
            connections: self.connections.load(Relaxed),
            responses: array::from_fn(|n| self.classes[n].load(Relaxed)),
            errors: self.errors.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            waiting: 0,
            latency_us_log2: self.latency.iter().map(|n| n.load(Relaxed)).collect(),
            latency_us: self.latency_us.load(Relaxed),
        }
    }
}

impl Counters {
    /// Requests and connections that have come, and those of them that no instance answered.
    pub(crate) fn arrivals(&self) -> (u64, u64) {
        let arrived = self.requests.load(Relaxed) + self.connections.load(Relaxed);
        (arrived, self.errors.load(Relaxed))
    }

    /// What an instance has answered.
    pub(crate) fn answers(&self) -> Answers {
        let EndpointCounters { responses, errors, latency_us_log2, latency_us, .. } = self.read();
        Answers { responses, errors, latency_us_log2, latency_us }
    }
}

/// A request or connection that goes on; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Going(Arc<Counters>);

impl Drop for Going {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = latency.as_micros();
    let bits = u128::BITS - micros.leading_zeros();
    usize::try_from(bits).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        for (micros, expected) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1000, 10)] {
            assert_eq!(bucket(Duration::from_micros(micros)), expected, "{micros}");
        }
        assert_eq!(bucket(Duration::from_secs(1_000_000)), BUCKETS - 1);
    }
}
