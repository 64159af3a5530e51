//! What is measured of this machine's part: endpoints, routes and instances.

use std::collections::BTreeMap;

use kiln_engine::TargetError;
use kiln_engine::metrics::{Distribution, Family, Kind, Number, Value};
use kiln_gateway::GatewayError;
use kiln_gateway::control::{EndpointCounters, EndpointStatus, InstanceTraffic, Status};
use kiln_model::name::InstanceId;

use super::Machine;
use super::create::chain;
use super::labels::InstanceLabels;
use crate::instance::{Observed, observe_instances};
use crate::usage::Usage;

/// Classes of responses, by the first digit of their status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Machine {
    /// All families of this machine, in a fixed order.
    pub(super) fn metrics(&self) -> Result<Vec<Family>, TargetError> {
        let what = "measure";
        let instances = observe_instances(&self.root, &self.cgroups)
            .map_err(|error| TargetError::passing(what, error))?;
        let status = match self.gateway.status() {
            Ok(status) => Some(status),
            Err(GatewayError::NotRunning { .. }) => None,
            Err(error) => return Err(TargetError::passing(what, chain(&error))),
        };
        let mut families =
            vec![gauge("kiln_gateway_up", "Whether a gateway runs.").of(status.is_some())];
        let traffic = status.as_ref().map(|status| &status.instances[..]).unwrap_or_default();
        families.extend(instances_of(&instances, traffic));
        if let Some(status) = &status {
            families.extend(gateway(status));
            families.extend(endpoints(&status.endpoints));
        }
        Ok(families)
    }
}

fn instances_of(seen: &[Observed], traffic: &[InstanceTraffic]) -> Vec<Family> {
    let mut cpu = counter("kiln_instance_cpu_seconds_total", "Processor time used.");
    let mut memory = gauge("kiln_instance_memory_bytes", "Resident memory.");
    let mut tasks = gauge("kiln_instance_tasks", "Threads.");
    let mut started = gauge("kiln_instance_started_timestamp_seconds", "When it was started.");
    let mut requests = gauge("kiln_instance_requests_in_flight", "HTTP requests in flight.");
    let mut connections =
        gauge("kiln_instance_connections", "TCP and upgraded connections that are open.");
    let mut responses = counter("kiln_instance_responses_total", "Responses, by class.");
    let mut errors =
        counter("kiln_instance_errors_total", "Requests that it took and did not answer.");
    let mut times = histogram("kiln_instance_response_seconds", "Times until the response's head.");
    let traffic: BTreeMap<&InstanceId, &InstanceTraffic> =
        traffic.iter().map(|one| (&one.instance, one)).collect();
    for seen in seen {
        let Some(record) = &seen.record else { continue };
        let Some(labels) = InstanceLabels::from_labels(&record.labels) else { continue };
        let (stack, server) = (labels.stack.to_string(), labels.component.name);
        let own = [("stack", &*stack), ("server", &*server), ("instance", &*seen.instance)];
        started.add(&own, milliseconds(record.started_at_ms));
        if let Some(used) = Usage::of_all(seen.processes.iter().copied()) {
            cpu.add(&own, milliseconds(used.cpu_ms));
            memory.add(&own, used.memory);
            tasks.add(&own, used.tasks);
        }
        let id: Option<InstanceId> = seen.instance.parse().ok();
        let Some(traffic) = id.and_then(|id| traffic.get(&id).copied()) else { continue };
        requests.add(&own, traffic.requests);
        connections.add(&own, traffic.connections);
        classes(&mut responses, &own, &traffic.answers.responses);
        errors.add(&own, traffic.answers.errors);
        let answers = &traffic.answers;
        times.push(&own, distribution(&answers.latency_us_log2, answers.latency_us));
    }
    vec![started, cpu, memory, tasks, requests, connections, responses, errors, times]
}

fn gateway(status: &Status) -> Vec<Family> {
    let uptime = gauge("kiln_gateway_uptime_seconds", "How long this gateway has run.");
    let connections =
        gauge("kiln_gateway_client_connections", "Connections of clients, idle ones included.");
    vec![uptime.of(milliseconds(status.uptime_ms)), connections.of(status.client_connections)]
}

fn endpoints(endpoints: &[EndpointStatus]) -> Vec<Family> {
    let mut connections = counter("kiln_endpoint_connections_total", "Connections accepted.");
    let mut certificates = gauge(
        "kiln_endpoint_certificate_not_after_timestamp_seconds",
        "When a certificate in use ends.",
    );
    let mut troubled = gauge(
        "kiln_endpoint_certificate_trouble",
        "Whether a certificate cannot be renewed, or is not there yet.",
    );
    let mut routes = Routes::new();
    for endpoint in endpoints {
        let (stack, name) = (endpoint.stack.to_string(), &*endpoint.bound.component.name);
        let own = [("stack", &*stack), ("endpoint", name)];
        connections.add(&own, endpoint.counters.connections);
        for certificate in &endpoint.certificates {
            let labels = [own[0], own[1], ("certificate", &*certificate.title)];
            if let Some(not_after) = certificate.not_after {
                certificates.add(&labels, u64::try_from(not_after).unwrap_or_default());
            }
            troubled.add(&labels, certificate.trouble.is_some());
        }
        for route in &endpoint.routes {
            let to = route.to.to_string();
            let host = route.host.as_deref().unwrap_or_default();
            let labels = [own[0], own[1], ("host", host), ("path", &*route.path), ("to", &*to)];
            routes.add(&labels, &route.counters);
        }
    }
    let mut families = vec![connections, certificates, troubled];
    families.extend(routes.families());
    families
}

/// What is measured of each route, the endpoint's own (without host and path) included.
struct Routes {
    requests: Family,
    responses: Family,
    errors: Family,
    in_flight: Family,
    waiting: Family,
    times: Family,
}

impl Routes {
    fn new() -> Self {
        Self {
            requests: counter("kiln_route_requests_total", "HTTP requests received."),
            responses: counter(
                "kiln_route_responses_total",
                "Responses by class, the gateway's own included.",
            ),
            errors: counter(
                "kiln_route_errors_total",
                "Requests and TCP connections that no instance answered.",
            ),
            in_flight: gauge("kiln_route_in_flight", "Requests and connections under way."),
            waiting: gauge(
                "kiln_route_waiting",
                "Requests and connections without an instance yet.",
            ),
            times: histogram("kiln_route_response_seconds", "Times until the response's head."),
        }
    }

    fn add(&mut self, labels: &[(&str, &str)], counters: &EndpointCounters) {
        self.requests.add(labels, counters.requests);
        classes(&mut self.responses, labels, &counters.responses);
        self.errors.add(labels, counters.errors);
        self.in_flight.add(labels, counters.in_flight);
        self.waiting.add(labels, counters.waiting);
        self.times.push(labels, distribution(&counters.latency_us_log2, counters.latency_us));
    }

    fn families(self) -> [Family; 6] {
        [self.requests, self.responses, self.errors, self.in_flight, self.waiting, self.times]
    }
}

fn counter(name: &str, help: &str) -> Family {
    Family::new(name, Kind::Counter, help)
}

fn gauge(name: &str, help: &str) -> Family {
    Family::new(name, Kind::Gauge, help)
}

fn histogram(name: &str, help: &str) -> Family {
    Family::new(name, Kind::Histogram, help)
}

fn milliseconds(milliseconds: u64) -> f64 {
    milliseconds.number() / 1e3
}

fn classes(family: &mut Family, labels: &[(&str, &str)], counts: &[u64; 5]) {
    for (class, count) in CLASSES.iter().zip(counts) {
        family.add(&[labels, &[("class", class)]].concat(), *count);
    }
}

/// The gateway's buckets: number `n` has times below 2ⁿ microseconds, the last one all others.
fn distribution(buckets: &[u64], sum_us: u64) -> Value {
    let (bounded, _) = buckets.split_at(buckets.len().saturating_sub(1));
    let (mut below, mut bound) = (0, 1.0);
    let cumulated = bounded.iter().map(|count| {
        below += count;
        let bucket = (bound / 1e6, below);
        bound *= 2.0;
        bucket
    });
    let buckets_below = cumulated.collect();
    let (count, sum) = (buckets.iter().sum(), sum_us.number() / 1e6);
    Value::Distribution(Distribution { buckets: buckets_below, count, sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulated_in_seconds() {
        let Value::Distribution(found) = distribution(&[1, 0, 2, 4], 3_000_000) else {
            panic!("not a distribution");
        };
        assert_eq!(found.buckets, [(1e-6, 1), (2e-6, 1), (4e-6, 3)]);
        assert_eq!((found.count, found.sum), (7, 3.0));
    }
}
