//! `kiln rollback`: an older content, as a new generation. It is what was recorded: nothing is
//! evaluated or built.

use std::time::Instant;

use kiln_daemon::api::Apply;
use kiln_daemon::api::follows::Following;
use kiln_daemon::ledger::{Ledger, LedgerError};
use kiln_model::change::changes;
use kiln_model::generation::{Content, Generation, Origin};
use kiln_model::name::StackName;

use crate::context::Context;
use crate::document::outputs;
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::render::changes::{Sides, sealed};
use crate::render::plan::PlanView;

use super::apply::Concluded;
use super::apply::conclusion::{Change, conclude};
use super::show::chapter;

/// How often a stack that others change all the time is looked at anew.
const MOST_TURNS: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The generation to go back to; the one that served before where not given
    generation: Option<u64>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let begun = Instant::now();
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    for _ in 0..MOST_TURNS {
        let goal = goal(&ledger, &stack, args.generation)?;
        let wanted = Wanted {
            content: goal.content.clone(),
            origin: Origin::Rollback { to: goal.number },
            commit: goal.commit.clone(),
            ends: Vec::new(),
            question: format!(
                "Bring stack {stack} back to the content of generation {}?",
                goal.number
            ),
        };
        match attempt(context, &ledger, &stack, wanted, args.yes, begun) {
            // Nobody has confirmed what has changed meanwhile.
            Err(Concluded::ParentChanged) if args.yes => {}
            ended => return concluded(ended, &stack),
        }
    }
    concluded(Err(Concluded::ParentChanged), &stack)
}

fn goal(
    ledger: &Ledger,
    stack: &StackName,
    number: Option<u64>,
) -> Result<std::sync::Arc<Generation>, CommandError> {
    match number {
        Some(number) => Ok(chapter(ledger, stack, number)?.generation),
        None => ledger.before_active(stack)?.ok_or_else(|| {
            CommandError::failed(format!("{stack} has no earlier generation to go back to"))
                .with_help("`kiln history` lists the generations; name one")
        }),
    }
}

/// A content that is to take the place of what serves.
pub(crate) struct Wanted {
    pub(crate) content: Content,
    pub(crate) origin: Origin,
    pub(crate) commit: Option<String>,
    pub(crate) question: String,
    /// Branches that are followed no longer, before anything else is done.
    pub(crate) ends: Vec<Following>,
}

/// Shows what a content changes, asks, and brings it about.
pub(crate) fn replace(
    context: &Context,
    ledger: &Ledger,
    stack: &StackName,
    wanted: Wanted,
    yes: bool,
    begun: Instant,
) -> Result<Exit, CommandError> {
    concluded(attempt(context, ledger, stack, wanted, yes, begun), stack)
}

/// The end as a command's.
fn concluded(ended: Result<Exit, Concluded>, stack: &StackName) -> Result<Exit, CommandError> {
    ended.map_err(|error| match error {
        Concluded::Failed(error) => error,
        Concluded::ParentChanged => CommandError::failed(format!(
            "stack {stack} was changed meanwhile, and what was shown is no longer what would happen"
        ))
        .with_help("say it again to see what it would be now"),
    })
}

fn attempt(
    context: &Context,
    ledger: &Ledger,
    stack: &StackName,
    wanted: Wanted,
    yes: bool,
    begun: Instant,
) -> Result<Exit, Concluded> {
    let of = |error: LedgerError| Concluded::Failed(error.into());
    let (state, active) = (ledger.state(stack).map_err(of)?, ledger.active(stack).map_err(of)?);
    let nothing = Content::default();
    let before = active.as_ref().map_or(&nothing, |generation| &generation.content);
    let after = sealed(&wanted.content);
    let changes = changes(before, &after);
    let view = PlanView {
        stack,
        next: state.newest + 1,
        parent: state.active,
        sides: Sides { before, after: &after, changes: &changes },
        outputs: &wanted.content.outputs,
        builds: false,
    };
    context.say(&view.render(context.err));
    if view.sides.differ() && !yes && !context.confirm(&wanted.question)? {
        context.say("Nothing was changed.");
        return Ok(Exit::Failed);
    }
    for Following { id, branch, url, .. } in &wanted.ends {
        context.tell(async |mut client| client.unfollow(id).await)?;
        context.say(&format!("branch {branch} of {url} is followed no longer"));
    }
    let outputs = outputs(&wanted.content.outputs);
    let proposal = Apply {
        content: wanted.content,
        parent: state.active,
        origin: wanted.origin,
        commit: wanted.commit,
        cause: None,
    };
    let board = Board::new(context.err);
    let change = Change { stack, outputs, begun };
    context.block_on(conclude(context, change, &proposal, &board))
}
