//! `kiln image profile`: learn which system calls an image makes from a run of its tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_image::trial::TestReport;

use super::build::declared;
use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::ProfileDocument;
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;
use crate::signals::Signals;

pub(super) fn run(
    context: &Context,
    name: &str,
    output: Option<&Path>,
    variables: &Variables,
) -> Result<Exit, CommandError> {
    let mut draft = context.draft(variables, None)?;
    let image = declared(&draft, name)?;
    context.root.prepare()?;
    let board = Board::new(context.err);
    let shown = ImageBoard::new(&board);
    draft.lock(context.root.path(), false, &shown)?;
    let signals = Signals::attend()?;
    let (reports, calls) = draft.learn(context.root.path(), &image, &shown, signals.stop())?;
    draft.save_lock()?;
    board.finish();
    if reports.is_empty() {
        return Err(CommandError::failed(format!("{image} has no tests to learn from"))
            .with_help("give it a `test` block that has its program do what it does as a server"));
    }
    if let Some(failed) = reports.iter().find(|report| !report.passed) {
        let mut error = CommandError::failed(format!("the test {} of {image} failed", failed.name))
            .with_help("`kiln image test` shows more; a profile is learned from tests that pass");
        for complaint in reports.iter().flat_map(TestReport::complaints) {
            error = error.caused_by(&std::io::Error::other(complaint));
        }
        return Err(error);
    }
    let path = output
        .map_or_else(|| context.directory.join(format!("{}.seccomp", image.name)), PathBuf::from);
    fs::write(&path, text(&image.to_string(), &calls)).map_err(|error| {
        CommandError::failed(format!("{} cannot be written", path.display())).caused_by(&error)
    })?;
    let document = ProfileDocument {
        image: image.to_string(),
        path: path.display().to_string(),
        tests: reports.len() as u64,
        calls: calls.into_iter().collect(),
    };
    context.print(&document, || {
        let (path, calls) = (&document.path, document.calls.len());
        let shown = path.rsplit('/').next().unwrap_or(path);
        format!(
            "{path}: {calls} system calls, of {} tests\nsay `seccomp = file(\"{shown}\")` in each \
             server that is to be held to them\n",
            document.tests
        )
    })?;
    Ok(Exit::Done)
}

fn text(image: &str, calls: &BTreeSet<String>) -> String {
    let mut text =
        format!("# System calls of {image}, learned by `kiln image profile` from its tests.\n");
    for call in calls {
        text.push_str(call);
        text.push('\n');
    }
    text
}
