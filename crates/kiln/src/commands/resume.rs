//! `kiln resume`: take out the pin that a rollback has set.

use crate::context::Context;
use crate::document::small::ResumeDocument;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let was_pinned = ledger.state(&stack)?.pin;
    if was_pinned.is_some() {
        context.tell(async |mut client| client.resume(&stack).await)?;
    }
    let document = ResumeDocument { stack: stack.to_string(), was_pinned };
    context.print(&document, || match was_pinned {
        Some(generation) => {
            format!("Stack {stack} is no longer pinned to generation {generation}.")
        }
        None => format!("Stack {stack} was not pinned."),
    })?;
    Ok(Exit::Done)
}
