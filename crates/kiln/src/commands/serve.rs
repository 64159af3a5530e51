//! `kiln serve`: the daemon.

use crate::context::Context;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    kiln_daemon::server::serve_local(&context.root)?;
    Ok(Exit::Done)
}
