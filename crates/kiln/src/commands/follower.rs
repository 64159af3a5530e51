//! `kiln follower`: follows one branch; the daemon starts it.

use crate::context::Context;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which of the branches that are registered
    id: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    kiln_daemon::follow::work(&context.root, &args.id).map_err(|error| CommandError::of(&error))?;
    Ok(Exit::Done)
}
