//! `kiln show GEN`: one generation.

use std::fmt::Write as _;

use kiln_daemon::ledger::{Chapter, Ledger};
use kiln_model::name::StackName;

use crate::context::Context;
use crate::document::generation::GenerationDocument;
use crate::error::{CommandError, Exit};
use crate::render::plan::outputs;
use crate::render::spec::summary;
use crate::render::table::Table;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The generation's number; the one that serves where not given
    generation: Option<u64>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let number = match args.generation {
        Some(number) => number,
        None => ledger.state(&stack)?.active.ok_or_else(|| {
            CommandError::failed(format!("no generation of {stack} is active"))
                .with_help("`kiln history` lists the generations; name one")
        })?,
    };
    let chapter = chapter(&ledger, &stack, number)?;
    let document = GenerationDocument::of(&chapter);
    context.print(&document, || text(&document, &chapter, context))?;
    Ok(Exit::Done)
}

/// A generation that must exist, with its fate.
pub(crate) fn chapter(
    ledger: &Ledger,
    stack: &StackName,
    number: u64,
) -> Result<Chapter, CommandError> {
    let chapters = ledger.chapters(stack)?;
    let last = chapters.last().map_or(0, |chapter| chapter.generation.number);
    let found = chapters.into_iter().find(|chapter| chapter.generation.number == number);
    found.ok_or_else(|| {
        CommandError::usage(format!("{stack} has no generation {number}"))
            .with_help(format!("`kiln history` lists them; the newest is {last}"))
    })
}

fn text(document: &GenerationDocument, chapter: &Chapter, context: &Context) -> String {
    let (facts_of, holds) = (&document.summary, &chapter.generation.content);
    let mut text = format!(
        "Generation {} of stack {}, {}\n",
        facts_of.generation,
        document.stack,
        facts_of.state.replace('_', " ")
    );
    let mut head = Table::default();
    head.row(["made", &facts_of.created_at]);
    head.row(["by", &facts_of.origin]);
    if let Some(parent) = facts_of.parent {
        head.row(["parent", &parent.to_string()]);
    }
    if let Some(commit) = &facts_of.commit {
        head.row(["commit", commit]);
    }
    text.push_str(&head.render(2));
    for reason in &facts_of.reasons {
        let component = reason.component.as_deref().unwrap_or("the machine");
        let _ = writeln!(text, "  {component}: {}", reason.cause);
    }
    let mut table = Table::default();
    for (id, component) in &holds.components {
        table.row([&id.to_string(), &component.digest.short(12), &summary(&component.spec)]);
    }
    let _ = write!(text, "\n{}", table.render(2));
    let shown = outputs(&holds.outputs, context.out);
    if !shown.is_empty() {
        let _ = write!(text, "\nOutputs\n\n{shown}");
    }
    text
}
