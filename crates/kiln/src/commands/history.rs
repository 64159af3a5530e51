//! `kiln history`: the generations of a stack.

use crate::context::Context;
use crate::document::generation::{HistoryDocument, Summary};
use crate::error::{CommandError, Exit};
use crate::render::spec::counted;
use crate::render::table::Table;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let chapters = ledger.chapters(&stack)?;
    let document = HistoryDocument {
        stack: stack.to_string(),
        active: ledger.state(&stack)?.active,
        generations: chapters.iter().rev().map(Summary::of).collect(),
    };
    context.print(&document, || text(&document))?;
    Ok(Exit::Done)
}

fn text(document: &HistoryDocument) -> String {
    let mut table = Table::default();
    for generation in &document.generations {
        let state = match &generation.abandoned {
            Some(kind) => format!("abandoned ({kind})"),
            None => generation.state.replace('_', " "),
        };
        let origin = match generation.rollback_to {
            Some(to) => format!("rollback to {to}"),
            None => generation.origin.clone(),
        };
        let commit: String = generation.commit.iter().flat_map(|c| c.chars().take(12)).collect();
        table.row([
            &format!(
                "{}{}",
                generation.generation,
                if generation.state == "active" { "*" } else { "" }
            ),
            &generation.created_at[..19.min(generation.created_at.len())].replace('T', " "),
            &state,
            &origin,
            &counted(generation.components, "component"),
            &commit,
        ]);
    }
    table.render(0)
}
