//! `kiln image lock`: choose the inputs of a stack's images and write them down.

use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::LockDocument;
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;

pub(super) fn run(
    context: &Context,
    upgrade: bool,
    variables: &Variables,
) -> Result<Exit, CommandError> {
    let mut draft = context.draft(variables, None)?;
    context.root.prepare()?;
    let board = Board::new(context.err);
    draft.lock(context.root.path(), upgrade, &ImageBoard::new(&board))?;
    board.finish();
    let changed = draft.save_lock()?;
    let file = draft.directory.join(kiln_image::lock::FILE_NAME).display().to_string();
    let document = LockDocument { stack: draft.stack.to_string(), file, changed };
    context.print(&document, || {
        let file = &document.file;
        if changed { format!("Wrote {file}.") } else { format!("{file} is as it was.") }
    })?;
    Ok(Exit::Done)
}
