//! `kiln image build`: lock and build the images of a stack.

use kiln_daemon::prepare::Draft;
use kiln_image::store::ImageStore;
use kiln_model::name::{ComponentId, Kind};

use super::standing::Judge;
use super::{document, table};
use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::ImagesDocument;
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;
use crate::signals::Signals;

pub(super) fn run(
    context: &Context,
    name: Option<&str>,
    variables: &Variables,
) -> Result<Exit, CommandError> {
    let mut draft = context.draft(variables, None)?;
    let only = name.map(|name| declared(&draft, name)).transpose()?;
    context.root.prepare()?;
    let board = Board::new(context.err);
    draft.lock(context.root.path(), false, &ImageBoard::new(&board))?;
    let signals = Signals::attend()?;
    let shown = ImageBoard::new(&board);
    let built = draft.build(context.root.path(), only.as_ref(), &shown, signals.stop())?;
    board.finish();
    draft.save_lock()?;
    let store = ImageStore::open(context.root.path()).map_err(|e| CommandError::of(&e))?;
    let judge = Judge::new(context, &store);
    let images = built.values().map(|record| document(&judge, record)).collect();
    let document = ImagesDocument { images };
    context.print(&document, || table(&document))?;
    Ok(Exit::Done)
}

/// The image of the stack with this name.
pub(super) fn declared(draft: &Draft, name: &str) -> Result<ComponentId, CommandError> {
    let name = name.strip_prefix("image.").unwrap_or(name);
    let id = ComponentId::new(Kind::Image, name);
    let sealed = draft.seal()?;
    if sealed.contains_key(&id) {
        return Ok(id);
    }
    let images = sealed.keys().filter(|id| id.kind == Kind::Image);
    let known: Vec<&str> = images.map(|id| id.name.as_str()).collect();
    let help = kiln_config::diagnostic::nearest(name, known.iter().copied()).map_or_else(
        || {
            format!(
                "it declares {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )
        },
        |near| format!("did you mean {near}?"),
    );
    let stack = &draft.stack;
    Err(CommandError::usage(format!("stack {stack} declares no image {name}")).with_help(help))
}
