//! `kiln apply`: plan, then do it.

use std::time::{Duration, Instant};

use kiln_daemon::api::Apply;
use kiln_daemon::client::ClientError;
use kiln_daemon::ledger::Ledger;
use kiln_daemon::prepare::{Draft, Home, commit_of};
use kiln_model::change::Change;
use kiln_model::generation::Origin;

use crate::cli::Variables;
use crate::context::Context;
use crate::document::change::Ending;
use crate::document::outputs;
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;
use crate::signals::Signals;

use super::plan;
use conclusion::{Change as Changed, conclude, nothing};

pub(crate) mod conclusion;

/// How often a stack that changes all the time is planned anew.
const MOST_TURNS: usize = 5;

/// The pause between two looks at a rollout of somebody else.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    variables: Variables,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Take over a stack that another directory was applied as
    #[arg(long)]
    adopt: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let begun = Instant::now();
    // Errors of the configuration come first: they need no rights to be shown.
    context.draft(&args.variables, None)?;
    context.root.prepare()?;
    let ledger = Ledger::create(&context.root)?;
    let board = Board::new(context.err);
    let mut confirmed: Option<Vec<Change>> = None;
    for _ in 0..MOST_TURNS {
        let mut draft = Draft::new(&context.source(&args.variables), Some(&ledger))?;
        let home = Home::of(&context.directory);
        home.check(&context.root, &draft.stack, args.adopt)?;
        let joins = await_others(context, &draft, &ledger, &board)?;
        if joins == Meeting::Waited {
            continue;
        }
        draft.lock(context.root.path(), false, &ImageBoard::new(&board))?;
        board.finish();
        draft.check_room()?;
        let changes = draft.changes()?;
        if !agreed(context, args, &draft, &changes, &mut confirmed)? {
            return nothing(context, &draft, Ending::Declined, begun);
        }
        let proposal = prepare(context, &mut draft, &ledger, &board)?;
        // Who takes a stack over has it once that has worked.
        if Home::known(&context.root, &draft.stack)?.is_none() {
            home.keep(&context.root, &draft.stack)?;
        }
        let pin = draft.state.pin;
        let what = Changed { stack: &draft.stack, outputs: outputs(&draft.outputs), begun };
        match context.block_on(conclude(context, what, &proposal, &board)) {
            Err(Concluded::ParentChanged) => {}
            Err(Concluded::Failed(error)) => return Err(error),
            Ok(exit) => {
                home.keep(&context.root, &draft.stack)?;
                if let Some(pin) = pin {
                    context.say(&format!(
                        "the stack stays pinned to generation {pin} for what follows a \
                         repository; `kiln resume` takes the pin out"
                    ));
                }
                return Ok(exit);
            }
        }
    }
    Err(CommandError::failed("the stack was changed by others each time it was planned")
        .with_help("apply again when they are done"))
}

/// What keeps a proposal from its end.
#[derive(Debug)]
pub(crate) enum Concluded {
    /// Somebody else's generation came first.
    ParentChanged,
    /// It can't be.
    Failed(CommandError),
}

impl From<CommandError> for Concluded {
    fn from(error: CommandError) -> Self {
        Self::Failed(error)
    }
}

impl From<ClientError> for Concluded {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.into())
    }
}

/// Whether a rollout was met that is not of this content.
#[derive(Debug, PartialEq, Eq)]
enum Meeting {
    /// There is none, or it is of the same content and can be joined.
    Free,
    /// There was one, and it has ended: what it left must be looked at.
    Waited,
}

/// Waits for the end of a rollout of another content, which its deadline bounds.
fn await_others(
    context: &Context,
    draft: &Draft,
    ledger: &Ledger,
    board: &Board,
) -> Result<Meeting, CommandError> {
    let Some(rollout) = &draft.state.rollout else { return Ok(Meeting::Free) };
    let under_way = ledger.generation(&draft.stack, rollout.generation)?;
    if let Some(generation) = under_way
        && draft.is_content_of(&generation)?
    {
        return Ok(Meeting::Free);
    }
    let (number, deadline) = (rollout.generation, rollout.deadline);
    board
        .line(&format!("waiting for the rollout of generation {number}, until {deadline} at most"));
    loop {
        // A rollout that outlived its daemon goes on, or ends, only under another.
        context.block_on(context.client())?;
        let state = ledger.state(&draft.stack)?;
        if state.rollout.is_none_or(|r| r.generation != number) {
            return Ok(Meeting::Waited);
        }
        let now = kiln_engine::Clock::now(&kiln_engine::clock::SystemClock);
        // The daemon ends a rollout at its deadline.
        if now > deadline.after(kiln_model::quantity::Millis::seconds(5)) {
            return Ok(Meeting::Free);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Shows the plan and asks. What was confirmed once is not asked again, and must be the same.
fn agreed(
    context: &Context,
    args: &Args,
    draft: &Draft,
    changes: &[Change],
    confirmed: &mut Option<Vec<Change>>,
) -> Result<bool, CommandError> {
    let differ = changes.iter().any(Change::is_difference);
    match confirmed {
        Some(before) if before == changes => return Ok(true),
        Some(_) => {
            context.say(&plan::text(draft, changes, context.err)?);
            return Err(CommandError::failed(
                "the stack was changed meanwhile, and what was confirmed is no longer what would \
                 happen",
            )
            .with_help("the plan above is what it would be now; apply again to confirm it"));
        }
        None => {}
    }
    context.say(&plan::text(draft, changes, context.err)?);
    let question = format!("Apply this to stack {}?", draft.stack);
    if differ && !args.yes && !context.confirm(&question)? {
        return Ok(false);
    }
    *confirmed = Some(changes.to_vec());
    Ok(true)
}

/// Locks, builds and keeps what the content needs. Until the commit nothing of it has an effect.
fn prepare(
    context: &Context,
    draft: &mut Draft,
    ledger: &Ledger,
    board: &Board,
) -> Result<Apply, CommandError> {
    let signals = Signals::attend()?;
    let shown = ImageBoard::new(board);
    let built = draft.build(context.root.path(), None, &shown, signals.stop())?;
    drop(signals);
    board.finish();
    draft.save_lock()?;
    draft.keep_secrets(ledger)?;
    Ok(Apply {
        content: draft.content(Draft::contents(&built))?,
        parent: draft.parent.as_ref().map(|parent| parent.number),
        origin: Origin::Apply,
        commit: commit_of(&context.directory),
        cause: None,
    })
}
