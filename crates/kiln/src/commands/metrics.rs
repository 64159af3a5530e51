//! `kiln metrics`: what monitoring reads.

use kiln_daemon::api::document::Metrics;
use kiln_engine::metrics;

use crate::context::Context;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    let found: Metrics = context.ask(async |mut client| client.metrics().await)?;
    context.print(&found, || metrics::text(&found.families))?;
    Ok(Exit::Done)
}
