//! `kiln fmt`: configuration files in canonical form.

use std::io::Read as _;
use std::path::Path;

use kiln_config::fmt::{fmt_dir, format};

use crate::context::{Context, print_text};
use crate::document::small::FmtDocument;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; exit with 1 where a file is not in canonical form
    #[arg(long)]
    check: bool,
    /// Format standard input to standard output
    #[arg(long, conflicts_with = "check")]
    stdin: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if args.stdin {
        return from_stdin();
    }
    let files = fmt_dir(&context.directory).map_err(Box::new)?;
    let mut changed = Vec::new();
    for file in files.iter().filter(|file| file.is_changed()) {
        let path = file.path.display().to_string();
        if !args.check {
            file.write().map_err(|e| {
                CommandError::failed(format!("{path} cannot be written")).caused_by(&e)
            })?;
        }
        changed.push(path);
    }
    let differ = args.check && !changed.is_empty();
    let document = FmtDocument { changed };
    context.print(&document, || document.changed.join("\n"))?;
    Ok(if differ { Exit::Failed } else { Exit::Done })
}

fn from_stdin() -> Result<Exit, CommandError> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| CommandError::usage("standard input cannot be read").caused_by(&e))?;
    print_text(&format(Path::new("standard input"), &text).map_err(Box::new)?)?;
    Ok(Exit::Done)
}
