//! `kiln top`: what instances use, measured over a moment.

use std::fs;
use std::time::{Duration, Instant};

use kiln_daemon::api::document::Status;
use kiln_local::cgroup::{Cgroups, Hierarchies};

use crate::context::Context;
use crate::document::look::{TopDocument, UseDocument};
use crate::error::{CommandError, Exit};
use crate::progress::image::size;
use crate::render::table::Table;

/// How long processor time is measured.
const MOMENT: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let status = context.ask(async |mut client| client.status(&stack).await)?;
    let active = ledger.active(&stack)?;
    let limit = |component: &str| {
        let id = component.parse().ok()?;
        let spec = &active.as_ref()?.content.components.get(&id)?.spec;
        Some(spec.as_server()?.identity.memory.0)
    };
    let hierarchies = Hierarchies::detect().map_err(|e| CommandError::of(&e))?;
    let cgroups = Cgroups::new(hierarchies, &context.root.id()?);
    let begun = Instant::now();
    let before = measure(&status, &cgroups);
    std::thread::sleep(MOMENT);
    let span_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let mut instances = measure(&status, &cgroups);
    for instance in &mut instances {
        let earlier = before.iter().find(|b| b.instance == instance.instance);
        let spent = instance.cpu_ms.saturating_sub(earlier.map_or(instance.cpu_ms, |b| b.cpu_ms));
        // A millisecond of a second is all that is measured: nothing is lost.
        #[expect(clippy::cast_precision_loss, reason = "a span of at most a few seconds")]
        let percent = spent as f64 / span_ms * 100.0;
        instance.cpu_percent = (percent * 10.0).round() / 10.0;
        instance.memory_limit = limit(&instance.component);
    }
    let document = TopDocument { stack: stack.to_string(), instances };
    context.print(&document, || text(&document))?;
    Ok(Exit::Done)
}

/// What each running instance uses, by its control group's processes.
fn measure(status: &Status, cgroups: &Cgroups) -> Vec<UseDocument> {
    let mut found = Vec::new();
    for component in status.components.iter().filter(|c| c.kind == "server") {
        for instance in &component.instances {
            let processes = cgroups.group(&instance.id).processes();
            let uses: Vec<Use> = processes.into_iter().filter_map(Use::of).collect();
            if uses.is_empty() {
                continue;
            }
            found.push(UseDocument {
                component: format!("{}.{}", component.kind, component.name),
                instance: instance.id.clone(),
                state: instance.state.clone(),
                tasks: uses.iter().map(|u| u.tasks).sum(),
                cpu_percent: 0.0,
                cpu_ms: uses.iter().map(|u| u.cpu_ms).sum(),
                memory: uses.iter().map(|u| u.memory).sum(),
                memory_limit: None,
                in_flight: instance.in_flight.unwrap_or(0),
            });
        }
    }
    found
}

/// What one process uses, from `/proc/PID/stat` (see proc(5)).
struct Use {
    cpu_ms: u64,
    tasks: u64,
    memory: u64,
}

impl Use {
    /// `None` where it has ended.
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Self::parse(&stat, ticks_per_second, rustix::param::page_size() as u64)
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

fn text(document: &TopDocument) -> String {
    let mut table = Table::default();
    table.row(["INSTANCE", "STATE", "CPU", "MEMORY", "OF", "TASKS", "IN FLIGHT"]);
    for instance in &document.instances {
        table.row([
            &instance.instance,
            &instance.state,
            &format!("{:.1} %", instance.cpu_percent),
            &size(instance.memory),
            &instance.memory_limit.map(size).unwrap_or_default(),
            &instance.tasks.to_string(),
            &instance.in_flight.to_string(),
        ]);
    }
    table.render(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 100 4096 25 1 1";
        let used = Use::parse(stat, 100, 4096).unwrap();
        assert_eq!((used.cpu_ms, used.tasks, used.memory), (2000, 3, 25 * 4096));
        assert!(Use::parse("42", 100, 4096).is_none());
    }

    #[test]
    fn this_process_uses_something() {
        let used = Use::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(used.memory > 0 && used.tasks > 0);
    }
}
