//! `kiln top`: what instances use, measured over a moment.

use std::time::{Duration, Instant};

use kiln_daemon::api::document::Status;
use kiln_local::cgroup::{Cgroups, Hierarchies};
use kiln_local::usage::Usage;

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
            let Some(used) = Usage::of_all(cgroups.group(&instance.id).processes()) else {
                continue;
            };
            found.push(UseDocument {
                component: format!("{}.{}", component.kind, component.name),
                instance: instance.id.clone(),
                state: instance.state.clone(),
                tasks: used.tasks,
                cpu_percent: 0.0,
                cpu_ms: used.cpu_ms,
                memory: used.memory,
                memory_limit: None,
                in_flight: instance.in_flight.unwrap_or(0),
            });
        }
    }
    found
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
