//! `kiln status`: components, instances, health, drift, addresses.

use std::fmt::Write as _;

use kiln_daemon::api::document::{Branch, Component, Failures, Instance, Scale, Status, Volume};

use super::follow::phase;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::render::style::Palette;
use crate::render::time::since;
use crate::render::value::size;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shows the daemon's guard instead: by what it learns of changes, and what that costs.
    #[arg(long)]
    guard: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if args.guard {
        let report = context.ask(async |mut client| client.guard().await)?;
        context.print(&report, || guard::text(&report, context.out))?;
        return Ok(Exit::Done);
    }
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let status = context.ask(async |mut client| client.status(&stack).await)?;
    context.print(&status, || text(&status, context.out))?;
    Ok(Exit::Done)
}

/// The status as text.
pub(crate) fn text(status: &Status, palette: Palette) -> String {
    let mut text = head(status, palette);
    if status.components.is_empty() {
        text.push_str("\nIt has no components.\n");
        return text;
    }
    text.push('\n');
    let name = |c: &Component| format!("{}.{}", c.kind, c.name);
    let width = status.components.iter().map(|c| name(c).chars().count()).max().unwrap_or(0);
    for component in &status.components {
        let padded = format!("{:width$}", name(component));
        let line = format!("  {}  {}", palette.bold(&padded), facts(component, palette));
        let _ = writeln!(text, "{}", line.trim_end());
        if let Some(failures) = &component.failures {
            failure_lines(failures, &status.measured_at, palette, &mut text);
        }
        if matches!(component.kind.as_str(), "server" | "database") {
            for instance in &component.instances {
                instance_lines(instance, &status.measured_at, palette, &mut text);
            }
        } else {
            component.instances.iter().for_each(|i| drift_lines(i, palette, &mut text));
        }
        volume_lines(&component.volumes, &status.measured_at, palette, &mut text);
    }
    text
}

fn head(status: &Status, palette: Palette) -> String {
    let mut text = format!("Stack {}", palette.bold(&status.stack));
    match status.generation {
        Some(generation) => {
            let _ = write!(text, ", generation {generation}");
        }
        None => text.push_str(", no generation active"),
    }
    if let Some(commit) = &status.commit {
        let _ = write!(text, " at commit {}", commit.chars().take(12).collect::<String>());
    }
    let health = if status.healthy { palette.green("healthy") } else { palette.red("not healthy") };
    let _ = writeln!(text, ": {health}");
    if let Some(rollout) = &status.rollout {
        let (generation, until) = (rollout.generation, &rollout.deadline);
        let _ = writeln!(text, "  generation {generation} is being rolled out, until {until}");
    }
    if let Some(pin) = status.pinned {
        let _ = writeln!(text, "  pinned to generation {pin}; `kiln resume` takes the pin out");
    }
    if let Some(trouble) = &status.trouble {
        let _ = writeln!(text, "  {}: {trouble}", palette.red("trouble"));
    }
    for alarm in &status.alarms {
        let ago = since(&alarm.at, &status.measured_at);
        let ago = ago.map(|ago| format!(" {ago} ago")).unwrap_or_default();
        let component = alarm.component.as_ref().map(|name| format!("{name}: "));
        let (cause, component) = (alarm.cause.replace('_', " "), component.unwrap_or_default());
        let line = format!("alarm{ago}, {cause}: {component}{}", alarm.what);
        let _ = writeln!(text, "  {}", palette.red(&line));
    }
    if let Some(follow) = &status.follow {
        branch_lines(follow, palette, &mut text);
    }
    text
}

fn branch_lines(follow: &Branch, palette: Palette, text: &mut String) {
    let (branch, url, phase) = (&follow.branch, &follow.url, phase(follow.phase));
    let _ = writeln!(text, "  follows {branch} of {url}: {phase}");
    if let Some(last) = &follow.last {
        let sentence = last.sentence();
        let _ = writeln!(text, "  commit {}", sentence.lines().next().unwrap_or_default());
    }
    if let Some(trouble) = &follow.trouble {
        let _ = writeln!(text, "  {}: {trouble}", palette.red("trouble"));
    }
}

fn facts(component: &Component, palette: Palette) -> String {
    let mut facts: Vec<String> = Vec::new();
    if let Some(replicas) = &component.replicas {
        let counts = format!("{}/{} ready", replicas.ready, replicas.wanted);
        let good = replicas.ready >= replicas.wanted;
        let pinned = if replicas.pinned { " (pinned)" } else { "" };
        let shown = if good { palette.green(&counts) } else { palette.yellow(&counts) };
        facts.push(format!("{shown}{pinned}"));
    }
    facts.extend(component.scale.as_ref().map(|scale| scale_fact(scale, palette)));
    facts.extend(component.address.clone());
    facts.extend(component.to.as_ref().map(|to| format!("→ {to}")));
    if facts.is_empty() {
        facts.push(palette.dim(&component.digest.chars().take(19).collect::<String>()));
    }
    facts.extend(component.problem.as_ref().map(|problem| palette.red(problem)));
    facts.join("  ")
}

/// Who failed last, how, and with which last words.
fn failure_lines(failures: &Failures, now: &str, palette: Palette, text: &mut String) {
    let Failures { in_a_row, instance, cause, .. } = failures;
    let what = if failures.looping { "crash loop" } else { "failed" };
    let ago = since(&failures.at, now).map(|ago| format!(" {ago} ago")).unwrap_or_default();
    let line = format!("{what}: {in_a_row} in a row, last {instance}{ago}: {cause}");
    let shown = if failures.looping { palette.red(&line) } else { palette.yellow(&line) };
    let _ = writeln!(text, "    {shown}");
    if let Some(next) = &failures.next_at {
        let _ = writeln!(text, "    the next one is made at {next}");
    }
    for line in &failures.last_words {
        let _ = writeln!(text, "      {} {line}", palette.dim("|"));
    }
}

/// The bounds of a count that follows demand, and what it rests on.
fn scale_fact(scale: &Scale, palette: Palette) -> String {
    let Scale { min, max, because, trouble, .. } = scale;
    let mut fact = format!("of {min} to {max}");
    if let Some(because) = because {
        let _ = write!(fact, " ({because})");
    }
    if let Some(trouble) = trouble {
        let _ = write!(fact, "  {}: {trouble}", palette.red("count held"));
    }
    fact
}

fn instance_lines(instance: &Instance, now: &str, palette: Palette, text: &mut String) {
    let state = format!("{:8}", instance.state);
    let state = match instance.state.as_str() {
        "ready" => palette.green(&state),
        "unready" => palette.red(&state),
        _ => palette.yellow(&state),
    };
    let address = instance.address.as_deref().unwrap_or_default();
    let mut line = format!("    {}  {state}  {address:15}", instance.id);
    if let Some(pid) = instance.pid {
        let _ = write!(line, "  pid {pid:<7}");
    }
    if let Some(up) = instance.started_at.as_deref().and_then(|then| since(then, now)) {
        let _ = write!(line, "  up {up}");
    }
    if let Some(role) = &instance.role {
        let _ = write!(line, "  {role}");
    }
    if let Some(integrity) = &instance.integrity {
        let _ = write!(line, "  {integrity}");
    }
    if let Some(reason) = &instance.reason {
        let _ = write!(line, "  {reason}");
    }
    let _ = writeln!(text, "{}", line.trim_end());
    drift_lines(instance, palette, text);
}

/// Where a database's data is, and which of it is kept; volumes of standbys are not worth a line.
fn volume_lines(volumes: &[Volume], now: &str, palette: Palette, text: &mut String) {
    for volume in volumes {
        let Some(place) = volume.place.as_deref() else { continue };
        let what = match place {
            "head" => "data",
            "end" => "end of its branch",
            _ => "kept",
        };
        let mut line = format!("    {what}: branch {}, {}", volume.branch, size(volume.used));
        if let Some(ago) = volume.left_at.as_deref().and_then(|then| since(then, now)) {
            let _ = write!(line, ", left {ago} ago");
        }
        let _ = writeln!(text, "{}", if place == "head" { line } else { palette.dim(&line) });
    }
}

fn drift_lines(instance: &Instance, palette: Palette, text: &mut String) {
    for drift in &instance.drift {
        let (what, found, expected) = (&drift.what, &drift.found, &drift.expected);
        let line = format!("drift: {what} is {found}, not {expected}");
        let _ = writeln!(text, "      {}", palette.red(&line));
    }
}

mod guard;

#[cfg(test)]
mod tests;
