//! `kiln drift`: measure now and show what is not as declared.

use std::fmt::Write as _;

use kiln_daemon::api::document::Drift;

use crate::context::Context;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let drift = context.ask(async |mut client| client.measure(&stack).await)?;
    context.print(&drift, || text(&drift))?;
    Ok(if drift.drift.is_empty() { Exit::Done } else { Exit::Differences })
}

fn text(drift: &Drift) -> String {
    if drift.drift.is_empty() {
        return format!("Stack {}: everything is what its digest says.", drift.stack);
    }
    let mut text = String::new();
    for instance in &drift.drift {
        let _ = writeln!(text, "{}.{} {}", instance.kind, instance.name, instance.instance);
        for difference in &instance.differences {
            let (found, expected) = (&difference.found, &difference.expected);
            let _ = writeln!(text, "    {}: {found}, not {expected}", difference.what);
        }
    }
    text
}
