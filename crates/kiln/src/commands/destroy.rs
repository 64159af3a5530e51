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
    let wanted = Wanted {
        content: Content::default(),
        origin: Origin::Destroy,
        commit: None,
        question: format!("Retire stack {stack}?"),
    };
    replace(context, &ledger, &stack, wanted, args.yes, begun)
}
