//! `kiln incidents`: what was found not to be what it was made as, and the evidence that was kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use kiln_engine::journal::{Event, Record};
use kiln_local::local::quarantine::{self, Incident};
use kiln_model::drift::Drift;

use crate::context::Context;
use crate::document::incident::{
    DifferenceDocument, FileDocument, IncidentDocument, IncidentsDocument,
};
use crate::error::{CommandError, Exit};
use crate::render::table::Table;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Only so many of the last
    #[arg(long, value_name = "N", default_value_t = 100)]
    tail: usize,
    /// Of all stacks
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show one, and what its evidence holds
    Show {
        /// The instance or network
        id: String,
    },
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    if let Some(What::Show { id }) = &args.what {
        let incidents = incidents(context, &ledger.records(None)?);
        let found = incidents.into_iter().find(|incident| incident.id == *id);
        let Some(found) = found else {
            return Err(CommandError::failed(format!(
                "nothing named {id} is known to have drifted"
            ))
            .with_help("`kiln incidents --all` lists what has"));
        };
        context.print(&found, || detail(&found))?;
        return Ok(Exit::Done);
    }
    let stack = if args.all { None } else { Some(context.stack_name(&ledger)?) };
    let mut incidents = incidents(context, &ledger.records(stack.as_ref())?);
    if let Some(stack) = &stack {
        incidents.retain(|incident| incident.stack == stack.as_str());
    }
    let incidents = incidents.split_off(incidents.len().saturating_sub(args.tail));
    let document = IncidentsDocument { incidents };
    context.print(&document, || text(&document, args.all))?;
    Ok(Exit::Done)
}

/// What the log and the bundles tell of, the oldest first. A bundle stands although the log has lost
/// what it is about.
fn incidents(context: &Context, records: &[Record]) -> Vec<IncidentDocument> {
    let bundles = quarantine::list(context.root.path());
    let mut bundles: BTreeMap<String, Incident> =
        bundles.into_iter().map(|bundle| (bundle.instance.clone(), bundle)).collect();
    let mut incidents: Vec<IncidentDocument> = records
        .iter()
        .filter_map(|record| {
            let Event::Drifted { component, instance, drift, quarantine } = &record.entry.event
            else {
                return None;
            };
            let mut incident = IncidentDocument {
                id: instance.to_string(),
                stack: record.stack.clone(),
                component: component.to_string(),
                found_at: Some(record.entry.at.to_string()),
                differences: differences(drift),
                quarantine: *quarantine,
                ..IncidentDocument::default()
            };
            if let Some(bundle) = bundles.remove(&incident.id) {
                take(context, &mut incident, bundle);
            }
            Some(incident)
        })
        .collect();
    for (_, bundle) in bundles {
        let mut incident = IncidentDocument {
            id: bundle.instance.clone(),
            stack: bundle.stack.clone(),
            component: bundle.component.clone(),
            differences: differences(&bundle.drift),
            quarantine: true,
            ..IncidentDocument::default()
        };
        take(context, &mut incident, bundle);
        incidents.push(incident);
    }
    incidents.sort_by(|a, b| time(a).cmp(&time(b)));
    incidents
}

fn time(incident: &IncidentDocument) -> Option<&String> {
    incident.found_at.as_ref().or(incident.saved_at.as_ref())
}

/// Adds what is known of a bundle.
fn take(context: &Context, incident: &mut IncidentDocument, bundle: Incident) {
    let path: PathBuf = quarantine::directory(context.root.path()).join(&bundle.instance);
    incident.bundle = Some(path.display().to_string());
    incident.saved_at = Some(bundle.saved_at);
    incident.frozen = Some(bundle.frozen);
    incident.digest = Some(bundle.digest);
    incident.generation = Some(bundle.generation);
    incident.omitted = bundle.omitted;
    let file = |(name, size)| FileDocument { name, size };
    incident.files = bundle.files.into_iter().map(file).collect();
}

fn differences(drift: &[Drift]) -> Vec<DifferenceDocument> {
    let difference = |drift: &Drift| DifferenceDocument {
        what: drift.what.to_string(),
        expected: drift.expected.clone(),
        found: drift.found.clone(),
    };
    drift.iter().map(difference).collect()
}

fn text(document: &IncidentsDocument, all: bool) -> String {
    if document.incidents.is_empty() {
        return "Nothing was found to differ from what it was made as.\n".to_owned();
    }
    let mut table = Table::default();
    for incident in &document.incidents {
        let at = time(incident).map(|at| at.replace('T', " ")).unwrap_or_default();
        let first = incident.differences.first();
        let first = first.map(|it| format!("{}: {}, not {}", it.what, it.found, it.expected));
        let first = first.unwrap_or_default();
        let kept = incident.bundle.clone().unwrap_or_else(|| "-".to_owned());
        if all {
            table.row([&incident.stack, &at, &incident.component, &incident.id, &kept, &first]);
        } else {
            table.row([&at, &incident.component, &incident.id, &kept, &first]);
        }
    }
    table.render(0)
}

fn detail(incident: &IncidentDocument) -> String {
    let mut text = format!("{} of {}, stack {}\n", incident.id, incident.component, incident.stack);
    for (name, at) in [("found", &incident.found_at), ("saved", &incident.saved_at)] {
        if let Some(at) = at {
            let _ = writeln!(text, "  {name} at {}", at.replace('T', " "));
        }
    }
    for it in &incident.differences {
        let _ = writeln!(text, "  {}: {}, not {}", it.what, it.found, it.expected);
    }
    let Some(bundle) = &incident.bundle else {
        let why = if incident.quarantine {
            "there is no bundle: it is not gone yet, or saving it failed (see the daemon's log)"
        } else {
            "no evidence is kept: its component has no `quarantine = true`"
        };
        let _ = writeln!(text, "  {why}");
        return text;
    };
    let _ = writeln!(text, "  evidence in {bundle}");
    let mut table = Table::default();
    for file in &incident.files {
        table.row([&file.name, &format!("{} bytes", file.size)]);
    }
    text.push_str(&table.render(4));
    for omitted in &incident.omitted {
        let _ = writeln!(text, "  left out: {omitted}");
    }
    text
}
