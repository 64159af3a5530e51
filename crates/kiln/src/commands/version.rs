//! `kiln version`.

use crate::context::Context;
use crate::document::small::VersionDocument;
use crate::error::{CommandError, Exit};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit, CommandError> {
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let document = VersionDocument {
        version: kiln_daemon::api::VERSION.to_owned(),
        target: format!("{arch}-{os}"),
    };
    context.print(&document, || format!("kiln {}", document.version))?;
    Ok(Exit::Done)
}
