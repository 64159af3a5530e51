//! `kiln database restore`: the data of a moment, as a branch of the database's data or in a directory.

use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln_backup::choice::Moment;
use kiln_engine::backup::{Answer, Ask};
use kiln_model::data::{Branch, BranchOrigin};
use kiln_model::generation::{Content, Origin};
use kiln_model::quantity::Timestamp;

use crate::commands::rollback::{Wanted, replace};
use crate::context::Context;
use crate::error::{CommandError, Exit};

use super::{ask, named, senseless};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The database, `database.orders` or `orders`
    #[arg(value_name = "NAME")]
    name: String,
    /// `latest`, an instant such as 2026-05-01T13:30:00Z, or the name of a backup
    #[arg(long, value_name = "MOMENT")]
    at: String,
    /// Fill this directory, which must be empty or not there yet, and leave the database alone
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    match &args.into {
        Some(into) => fill(context, args, into),
        None => branch(context, args),
    }
}

/// Has the database go on with the data of the moment, in a branch of its own. What it has now is kept,
/// and gone back to by `rollback --with-data`.
fn branch(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let begun = Instant::now();
    let moment: Moment = args.at.parse().map_err(|why: String| CommandError::usage(why))?;
    let (stack, component) = named(context, &args.name)?;
    // What cannot be restored is told before anything is decided.
    let Answer::List(backups) = ask(context, &args.name, &Ask::List)? else {
        return Err(senseless());
    };
    if backups.backups.is_empty() {
        return Err(CommandError::failed(format!("there is no backup of {component} yet")));
    }
    let first = backups.restorable.as_ref().and_then(|span| span.from.parse::<Timestamp>().ok());
    if let (Moment::At(at), Some(first)) = (&moment, first)
        && *at < first
    {
        let why = format!("{component} was not backed up at {at}: {first} is the first moment");
        return Err(CommandError::usage(why));
    }
    let ledger = context.ledger()?;
    let active = ledger.active(&stack)?.ok_or_else(senseless)?;
    let mut data = active.content.data.clone();
    let at = args.at.clone();
    data.insert(component.clone(), Branch::new(BranchOrigin::Backup { at }));
    let at = &args.at;
    let wanted = Wanted {
        content: Content { data, ..active.content.clone() },
        origin: Origin::Apply,
        commit: active.commit.clone(),
        question: format!("Have {component} of stack {stack} go on with its data of {at}?"),
        ends: Vec::new(),
    };
    replace(context, &ledger, &stack, wanted, args.yes, begun)
}

fn fill(context: &Context, args: &Args, into: &Path) -> Result<Exit, CommandError> {
    let into = std::path::absolute(into)
        .map_err(|e| CommandError::failed("the directory cannot be found").caused_by(&e))?;
    let wanted = Ask::Restore { at: args.at.clone(), into };
    let Answer::Restored(restored) = ask(context, &args.name, &wanted)? else {
        return Err(senseless());
    };
    context.print(&restored, || {
        let proved = restored.proved.join(", ");
        let (into, backup) = (restored.into.display(), &restored.backup);
        format!("The data is in {into}, from the backup {backup}.\nProved: {proved}.")
    })?;
    Ok(Exit::Done)
}
