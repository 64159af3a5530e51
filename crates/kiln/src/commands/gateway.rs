//! `kiln gateway`: the data plane, started by the daemon.

use crate::context::Context;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[expect(clippy::unnecessary_wraps, reason = "verbs have one form")]
pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    Ok(Exit::Process(kiln_gateway::run(context.root.path())))
}
