//! From counters that belong to processes to what is asked of a server.

use std::collections::BTreeMap;

use crate::name::{ComponentId, InstanceId};
use crate::quantity::Timestamp;

/// What is asked of a stack's servers, and what their instances use, at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// When it was measured.
    pub at: Timestamp,
    /// What has come for each server.
    pub servers: BTreeMap<ComponentId, Arrivals>,
    /// What each instance does.
    pub instances: BTreeMap<InstanceId, Usage>,
}

/// What has come for a server, from outside and from other servers. The counters only grow, and
/// begin anew with another process of the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Requests (connections, where they are not HTTP) that have come, answered or not.
    pub arrived: u64,
    /// Those that no instance answered.
    pub refused: u64,
    /// Those that wait for an instance now.
    pub waiting: u32,
}

/// What one instance does. The counters only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests and connections that it is answering now.
    pub in_flight: u32,
    /// Its responses by the time until their head: entry `n` counts those below 2^n microseconds
    /// that are in no lower entry; the last has no upper end.
    pub latency: Vec<u64>,
    /// Processor time that it has used, microseconds.
    pub cpu_us: u64,
    /// Memory that it uses now, bytes.
    pub memory: u64,
}

/// What is asked of one server, at one instant. Counters only grow, whichever instance or
/// process they were read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was measured.
    pub at: Timestamp,
    /// Requests that have come, answered or not.
    pub arrived: u64,
    /// Those that no instance answered.
    pub refused: u64,
    /// Those that wait for an instance now.
    pub waiting: u32,
    /// Those that ready instances are answering now.
    pub in_flight: u32,
    /// How many instances are ready.
    pub ready: u32,
    /// Responses by the time until their head, as in [`Usage::latency`].
    pub latency: Vec<u64>,
    /// Processor time that ready instances have used, microseconds.
    pub cpu_us: u64,
    /// Memory that ready instances use now, bytes.
    pub memory: u64,
    /// The number that the target's program printed last, in thousandths; none where it failed.
    pub number: Option<u64>,
}

/// Adds up what is read of one server.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    arrivals: Option<Arrivals>,
    instances: BTreeMap<InstanceId, Usage>,
    sum: Sample,
}

impl Meter {
    /// Takes in what was measured. Of the instances only those `ready` count: what one uses
    /// while it starts says nothing about what is asked of it.
    pub fn read<'a>(
        &mut self,
        server: &ComponentId,
        ready: impl Iterator<Item = &'a InstanceId>,
        demand: &Demand,
    ) -> Sample {
        let now = demand.servers.get(server).copied().unwrap_or_default();
        if let Some(before) = self.arrivals.replace(now) {
            self.sum.arrived += grown(before.arrived, now.arrived);
            self.sum.refused += grown(before.refused, now.refused);
        }
        let sum = &mut self.sum;
        (sum.at, sum.waiting) = (demand.at, now.waiting);
        (sum.in_flight, sum.memory, sum.ready) = (0, 0, 0);
        let mut seen = BTreeMap::new();
        for id in ready {
            sum.ready += 1;
            let Some(usage) = demand.instances.get(id) else { continue };
            sum.in_flight = sum.in_flight.saturating_add(usage.in_flight);
            sum.memory = sum.memory.saturating_add(usage.memory);
            // What one did before it was first seen is of another time.
            if let Some(before) = self.instances.get(id) {
                sum.cpu_us += grown(before.cpu_us, usage.cpu_us);
                add_grown(&mut sum.latency, &before.latency, &usage.latency);
            }
            seen.insert(id.clone(), usage.clone());
        }
        self.instances = seen;
        self.sum.clone()
    }
}

/// By how much a counter has grown; one that is lower than before has begun anew.
fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn add_grown(sum: &mut Vec<u64>, before: &[u64], now: &[u64]) {
    let anew = now.iter().zip(before).any(|(now, before)| now < before);
    sum.resize(sum.len().max(now.len()), 0);
    for (index, now) in now.iter().enumerate() {
        let before = if anew { 0 } else { before.get(index).copied().unwrap_or(0) };
        sum[index] += now.saturating_sub(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::id;

    fn demand(arrived: u64, usage: &[(&str, u64)]) -> Demand {
        let usage = usage.iter().map(|(id, cpu_us)| {
            let usage = Usage { cpu_us: *cpu_us, in_flight: 1, ..Usage::default() };
            (id.parse().unwrap(), usage)
        });
        let arrivals = Arrivals { arrived, ..Arrivals::default() };
        let servers = [(id("server.web"), arrivals)].into();
        Demand { at: Timestamp(0), servers, instances: usage.collect() }
    }

    #[test]
    fn counters_go_on_whoever_they_are_read_from() {
        let mut meter = Meter::default();
        let mut read = |demand: &Demand| {
            let ready: Vec<InstanceId> = demand.instances.keys().cloned().collect();
            let sample = meter.read(&id("server.web"), ready.iter(), demand);
            (sample.arrived, sample.cpu_us, sample.in_flight)
        };
        assert_eq!(read(&demand(1_000, &[("web-1", 500)])), (0, 0, 1), "of another time");
        assert_eq!(read(&demand(1_010, &[("web-1", 700), ("web-2", 90)])), (10, 200, 2));
        // Another process of the gateway counts from nothing, and an instance has gone.
        assert_eq!(read(&demand(5, &[("web-2", 100)])), (15, 210, 1));
    }
}
