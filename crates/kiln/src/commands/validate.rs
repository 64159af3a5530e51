//! `kiln validate`: check a stack without touching anything.

use crate::cli::Variables;
use crate::context::Context;
use crate::document::failure::Message;
use crate::document::small::ValidateDocument;
use crate::error::{CommandError, Exit};
use crate::render::spec::counted;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    variables: Variables,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let draft = context.draft(&args.variables, None)?;
    draft.check_addresses()?;
    let components = draft.seal()?.len();
    let document = ValidateDocument {
        stack: draft.stack.to_string(),
        valid: true,
        components,
        warnings: Message::all(&draft.warnings),
    };
    context.print(&document, || {
        format!("Stack {} is valid: {}.", draft.stack, counted(components, "component"))
    })?;
    Ok(Exit::Done)
}
