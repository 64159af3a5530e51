//! `kiln diff A B`: what differs between two generations.

use kiln_model::change::{add_branches, changes};

use crate::context::Context;
use crate::document::change::{ChangeDocument, DiffDocument};
use crate::error::{CommandError, Exit};
use crate::render::changes::{Sides, list, sealed};

use super::show::chapter;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The generation that is compared from
    from: u64,
    /// The generation that is compared to
    to: u64,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let before = chapter(&ledger, &stack, args.from)?.generation;
    let after = chapter(&ledger, &stack, args.to)?.generation;
    let sealed = sealed(&after.content);
    let mut changes = changes(&before.content, &sealed);
    add_branches(&before.content, &after.content, &mut changes);
    let document = DiffDocument {
        stack: stack.to_string(),
        from: args.from,
        to: args.to,
        changes: ChangeDocument::all(&changes),
    };
    let sides = Sides { before: &before.content, after: &sealed, changes: &changes };
    context.print(&document, || {
        if sides.differ() {
            list(&sides, context.out)
        } else {
            format!("Generations {} and {} are the same.", args.from, args.to)
        }
    })?;
    Ok(Exit::Done)
}
