//! `kiln database restore`: the data of a moment.

use std::path::PathBuf;

use kiln_engine::backup::{Answer, Ask};

use crate::context::Context;
use crate::error::{CommandError, Exit};

use super::{ask, senseless};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The database, `database.orders` or `orders`
    #[arg(value_name = "NAME")]
    name: String,
    /// `latest`, an instant such as 2026-05-01T13:30:00Z, or the name of a backup
    #[arg(long, value_name = "MOMENT")]
    at: String,
    /// The directory that is filled; it must be empty, or not there yet
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let into = std::path::absolute(&args.into)
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
