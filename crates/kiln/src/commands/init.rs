//! `kiln init`: the first file of a new stack.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use kiln_config::stack::init::{FILE_NAME, TEXT};

use crate::context::Context;
use crate::document::small::InitDocument;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    let path = context.directory.join(FILE_NAME);
    let shown = path.display().to_string();
    if context.has_files() {
        let directory = context.directory.display();
        return Err(CommandError::usage(format!("there is a stack in {directory} already"))
            .with_help("name an empty directory with --stack"));
    }
    let failed = |e: std::io::Error| {
        CommandError::failed(format!("{shown} cannot be written")).caused_by(&e)
    };
    fs::create_dir_all(&context.directory).map_err(failed)?;
    // What is there is never overwritten.
    let file = OpenOptions::new().create_new(true).write(true).open(&path);
    file.and_then(|mut file| file.write_all(TEXT.as_bytes())).map_err(failed)?;
    context.print(&InitDocument { created: vec![shown.clone()] }, || {
        format!("Wrote {shown}: a web server behind an endpoint.\n`kiln plan` shows it, `kiln apply` brings it up.")
    })?;
    Ok(Exit::Done)
}
