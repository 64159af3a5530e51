//! What is measured of stacks and of the daemon itself.

use std::time::Instant;

use kiln_engine::engine::Snapshot;
use kiln_engine::metrics::{Family, Kind, Number};
use kiln_local::usage::Usage;

use super::status;
use crate::api::VERSION;

/// The families of stacks, by what their keepers last saw.
pub(super) fn stacks(snapshots: &[std::sync::Arc<Snapshot>]) -> Vec<Family> {
    let gauge = |name, help| Family::new(name, Kind::Gauge, help);
    let mut generation = gauge("kiln_stack_generation", "The generation that serves; 0 for none.");
    let mut healthy = gauge("kiln_stack_healthy", "Whether all is as the generation says.");
    let mut rollout = gauge("kiln_stack_rollout", "The generation being rolled out; 0 for none.");
    let mut measured =
        gauge("kiln_stack_measured_timestamp_seconds", "When the stack was last looked at.");
    let mut wanted = gauge("kiln_server_instances_wanted", "How many there should be.");
    let mut ready = gauge("kiln_server_instances_ready", "How many can serve.");
    let mut drifted = gauge("kiln_stack_drifted", "Instances and networks that differ.");
    for snapshot in snapshots {
        let (status, drift) = (status::status(snapshot, None), status::drift(snapshot));
        let own = [("stack", &*status.stack)];
        generation.add(&own, status.generation.unwrap_or_default());
        healthy.add(&own, status.healthy);
        rollout.add(&own, status.rollout.map_or(0, |rollout| rollout.generation));
        measured.add(&own, snapshot.observed.at.0.number() / 1e3);
        drifted.add(&own, drift.drift.len());
        for component in &status.components {
            let Some(replicas) = &component.replicas else { continue };
            let labels = [own[0], ("server", &*component.name)];
            wanted.add(&labels, replicas.wanted);
            ready.add(&labels, replicas.ready);
        }
    }
    vec![generation, healthy, rollout, measured, drifted, wanted, ready]
}

/// The families of the daemon, which began at `begun`.
pub(super) fn daemon(begun: Instant) -> Vec<Family> {
    let mut build = Family::new("kiln_build_info", Kind::Gauge, "The version of the daemon.");
    build.add(&[("version", VERSION)], true);
    let uptime = Family::new("kiln_daemon_uptime_seconds", Kind::Gauge, "How long it has run.");
    let mut families = vec![build, uptime.of(begun.elapsed().as_secs_f64())];
    let own = i32::try_from(std::process::id()).ok().and_then(Usage::of);
    if let Some(used) = own {
        let cpu = Family::new(
            "kiln_daemon_cpu_seconds_total",
            Kind::Counter,
            "Processor time that the daemon has used.",
        );
        let memory = Family::new("kiln_daemon_memory_bytes", Kind::Gauge, "Its resident memory.");
        families.push(cpu.of(used.cpu_ms.number() / 1e3));
        families.push(memory.of(used.memory));
    }
    families
}
