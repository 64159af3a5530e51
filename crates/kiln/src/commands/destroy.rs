//! `kiln destroy`: the stack is retired. Its generations and images are kept.

use std::time::Instant;

use kiln_model::generation::{Content, Origin};

use crate::context::Context;
use crate::error::{CommandError, Exit};

use super::rollback::{Wanted, replace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let begun = Instant::now();
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    // What follows a branch would bring it back with the next commit.
    let mut follows = context.ask(async |mut client| client.follows().await)?;
    follows.retain(|following| following.stack.as_deref() == Some(stack.as_str()));
    let wanted = Wanted {
        ends: follows,
        content: Content::default(),
        origin: Origin::Destroy,
        commit: None,
        question: format!("Retire stack {stack}?"),
    };
    replace(context, &ledger, &stack, wanted, args.yes, begun)
}
