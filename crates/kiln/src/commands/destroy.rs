//! `kiln destroy`: the stack is retired. Its generations and images are kept, and its data unless
//! that is to go as well.

use std::time::Instant;

use kiln_model::data::{Branch, BranchOrigin};
use kiln_model::generation::{Content, Origin};

use crate::context::Context;
use crate::error::{CommandError, Exit};

use super::rollback::{Wanted, replace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove all data of its databases too, for good: what writes go to and all that is kept
    #[arg(long)]
    with_data: bool,
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
    let mut nothing = Content::default();
    if args.with_data {
        let known = ledger.chapters(&stack)?;
        let databases = known.iter().flat_map(|it| it.generation.content.databases());
        nothing.data = databases
            .map(|(id, _, _)| (id.clone(), Branch::new(BranchOrigin::Discarded)))
            .collect();
    }
    let lost: Vec<String> = nothing.data.keys().map(ToString::to_string).collect();
    let question = match &lost[..] {
        [] => format!("Retire stack {stack}?"),
        lost => {
            format!("Retire stack {stack}, and remove all data of {} for good?", lost.join(", "))
        }
    };
    let wanted =
        Wanted { ends: follows, content: nothing, origin: Origin::Destroy, commit: None, question };
    replace(context, &ledger, &stack, wanted, args.yes, begun)
}
