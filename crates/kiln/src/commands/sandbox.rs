//! `kiln sandbox`: runs one program of an image that is being built, started by the build. No
//! thread has been started before it.

use kiln_local::sandbox::run as serve;

use crate::context::Context;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[expect(clippy::unnecessary_wraps, reason = "verbs have one form")]
pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    Ok(Exit::Process(serve(context.root.path())))
}
