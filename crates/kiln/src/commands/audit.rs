//! `kiln audit`: the posture of what runs, measured from the kernel, rule by rule.

use std::fmt::Write as _;

use kiln_daemon::api::document::Status;
use kiln_local::cgroup::{Cgroups, Hierarchies};
use kiln_local::posture::{Facts, RULES};

use crate::context::Context;
use crate::document::posture::{FindingDocument, PostureDocument, RuleDocument};
use crate::error::{CommandError, Exit};
use crate::render::style::Palette;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show what was measured of each instance, also where a rule holds
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let status = context.ask(async |mut client| client.status(&stack).await)?;
    let hierarchies = Hierarchies::detect().map_err(|e| CommandError::of(&e))?;
    let cgroups = Cgroups::new(hierarchies, &context.root.id()?);
    let document = measure(&status, &cgroups)?;
    context.print(&document, || text(&document, args.verbose, context.out))?;
    Ok(if document.failed == 0 { Exit::Done } else { Exit::Failed })
}

/// Holds every running instance against every rule.
fn measure(status: &Status, cgroups: &Cgroups) -> Result<PostureDocument, CommandError> {
    let mut measured = Vec::new();
    let components = status.components.iter().filter(|c| c.kind == "server");
    for instance in components.flat_map(|component| &component.instances) {
        let Some(pid) = instance.pid.and_then(|pid| i32::try_from(pid).ok()) else { continue };
        match Facts::of(pid, &cgroups.group(&instance.id)) {
            Ok(facts) => measured.push((instance.id.clone(), facts)),
            // It has ended since: what is in its place is measured next time.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(CommandError::failed(format!("{} cannot be measured", instance.id))
                    .caused_by(&error)
                    .with_help("run the command as root"));
            }
        }
    }
    let rules: Vec<RuleDocument> = RULES
        .iter()
        .map(|rule| {
            let findings: Vec<FindingDocument> = measured
                .iter()
                .map(|(instance, facts)| {
                    let finding = (rule.check)(facts);
                    let (pass, found) = (finding.pass, finding.found);
                    FindingDocument { instance: instance.clone(), pass, found }
                })
                .collect();
            RuleDocument {
                id: rule.id,
                cis: rule.cis,
                title: rule.title,
                reason: rule.reason,
                pass: findings.iter().all(|finding| finding.pass),
                findings,
            }
        })
        .collect();
    Ok(PostureDocument {
        stack: status.stack.clone(),
        instances: measured.len() as u64,
        passed: rules.iter().filter(|rule| rule.pass).count() as u64,
        failed: rules.iter().filter(|rule| !rule.pass).count() as u64,
        rules,
    })
}

fn text(document: &PostureDocument, verbose: bool, palette: Palette) -> String {
    let mut text = String::new();
    for rule in &document.rules {
        let verdict = if rule.pass { palette.green("pass") } else { palette.red("FAIL") };
        let _ = write!(text, "{verdict}  {}: {}", palette.bold(rule.id), rule.title);
        let _ = match rule.cis {
            "" => writeln!(text),
            cis => writeln!(text, "  {}", palette.dim(&format!("(CIS {cis})"))),
        };
        if !rule.pass {
            let _ = writeln!(text, "      {}", rule.reason);
        }
        for finding in rule.findings.iter().filter(|finding| verbose || !finding.pass) {
            let _ = writeln!(text, "      {}: {}", finding.instance, finding.found);
        }
    }
    let PostureDocument { instances, passed, failed, .. } = document;
    let _ = writeln!(text, "{passed} rules hold, {failed} do not, for {instances} instances");
    text
}
