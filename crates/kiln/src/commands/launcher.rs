//! `kiln launcher`: the parent of all instances, started by the daemon. No thread has been
//! started before it.

use kiln_local::launcher::{IDLE_LIMIT, run as launch};

use crate::context::Context;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[expect(clippy::unnecessary_wraps, reason = "verbs have one form")]
pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    Ok(Exit::Process(launch(context.root.path(), IDLE_LIMIT)))
}
