//! `kiln rollback`: an older content, as a new generation. It is what was recorded: nothing is
//! evaluated or built.

use std::collections::BTreeMap;
use std::time::Instant;

use kiln_daemon::api::Apply;
use kiln_daemon::api::document::Volume;
use kiln_daemon::api::follows::Following;
use kiln_daemon::ledger::{Fate, Ledger, LedgerError};
use kiln_daemon::lineage::{Kept, Reign, state_of};
use kiln_daemon::prepare::carried;
use kiln_engine::backup::{Answer, Ask, Backups};
use kiln_model::change::{add_branches, changes};
use kiln_model::data::{Branch, BranchOrigin};
use kiln_model::generation::{Content, Generation, Origin};
use kiln_model::name::{ComponentId, StackName};
use kiln_model::quantity::Timestamp;

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
    /// Bring databases' data back as well, as it was at the end of that generation. What is there now
    /// is kept, and gone back to in the same way
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
    for _ in 0..MOST_TURNS {
        let goal = goal(&ledger, &stack, args.generation)?;
        let data = if args.with_data {
            branches(context, &ledger, &stack, &goal)?
        } else {
            stays(&ledger, &stack, &goal)?;
            BTreeMap::new()
        };
        let wanted = Wanted {
            content: Content { data, ..goal.content.clone() },
            origin: Origin::Rollback { to: goal.number },
            commit: goal.commit.clone(),
            ends: Vec::new(),
            question: format!(
                "Bring stack {stack} back to the content{} of generation {}?",
                if args.with_data { " and the data" } else { "" },
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

/// Refuses a content with which the data cannot stay as it is now.
fn stays(ledger: &Ledger, stack: &StackName, goal: &Generation) -> Result<(), CommandError> {
    let Some(active) = ledger.active(stack)? else { return Ok(()) };
    let wanted = |id: &ComponentId| goal.content.components.get(id)?.spec.as_database();
    carried(&active.content, wanted).map_err(|error| {
        CommandError::usage(error.to_string())
            .with_help("`--with-data` brings back what there was then, where it is kept")
    })
}

/// The branch in which the data of each database is as it was at the end of a generation.
fn branches(
    context: &Context,
    ledger: &Ledger,
    stack: &StackName,
    goal: &Generation,
) -> Result<BTreeMap<ComponentId, Branch>, CommandError> {
    let entries = ledger.journal(stack)?;
    let mut reigns = Vec::new();
    for chapter in ledger.chapters(stack)? {
        if matches!(chapter.fate, Fate::Active | Fate::Retired) {
            let Generation { number, content, .. } = &*chapter.generation;
            reigns.extend(Reign::of(*number, content, &entries));
        }
    }
    let status = context.ask(async |mut client| client.status(stack).await)?;
    let mut branches = BTreeMap::new();
    for (id, _, _) in goal.content.databases() {
        let shown = status.components.iter().filter(|c| c.kind == "database" && c.name == id.name);
        let volumes: Vec<Kept> = shown.flat_map(|c| &c.volumes).filter_map(kept).collect();
        // A generation that was given up may have opened a branch all the same.
        let own = goal.content.branch(id);
        let given_up = !reigns.iter().any(|reign| reign.number == goal.number);
        let left = |kept: &Kept| kept.branch == own.number && kept.left_at.is_some();
        if given_up && own.number == goal.number && volumes.iter().any(left) {
            branches.insert(id.clone(), own);
            continue;
        }
        let branch = match state_of(id, goal.number, &reigns, &volumes) {
            Ok(branch) => branch,
            Err(error) => match restorable(context, stack, id, goal.number, &reigns) {
                Some(at) => Branch::new(BranchOrigin::Backup { at: at.to_string() }),
                None => {
                    return Err(CommandError::usage(error.to_string()).with_help(error.help()));
                }
            },
        };
        branches.insert(id.clone(), branch);
    }
    Ok(branches)
}

/// The end of a generation, where backups restore the data of then.
fn restorable(
    context: &Context,
    stack: &StackName,
    database: &ComponentId,
    goal: u64,
    reigns: &[Reign],
) -> Option<Timestamp> {
    let ended = reigns.iter().find(|reign| reign.number > goal)?.committed;
    let answer = context.ask(async |mut client| client.backups(stack, database, &Ask::List).await);
    let Ok(Answer::List(Backups { restorable: Some(span), .. })) = answer else { return None };
    let from: Timestamp = span.from.parse().ok()?;
    (from <= ended).then_some(ended)
}

fn kept(volume: &Volume) -> Option<Kept> {
    let left_at = match &volume.left_at {
        Some(at) => Some(at.parse().ok()?),
        None => None,
    };
    Some(Kept { volume: volume.id.parse().ok()?, branch: volume.branch, left_at })
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
    let mut changes = changes(before, &after);
    add_branches(before, &wanted.content.clone().following(before, state.newest + 1), &mut changes);
    let view = PlanView {
        stack,
        next: state.newest + 1,
        parent: state.active,
        sides: Sides { before, after: &after, changes: &changes },
        outputs: &wanted.content.outputs,
        builds: false,
    };
    context.say(&view.render(context.err));
    let removes = wanted
        .content
        .data
        .values()
        .any(|branch| branch.is_unnumbered() && branch.from == BranchOrigin::Discarded);
    if (view.sides.differ() || removes) && !yes && !context.confirm(&wanted.question)? {
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
