//! `kiln image pull`: fetch an image from a registry.

use kiln_image::debian::suite::native_architecture;
use kiln_image::oci::reference::Reference;
use kiln_image::oci::registry::Registry;
use kiln_image::store::ImageStore;

use super::{Shown, arrived, name_for};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::Board;

pub(super) fn run(
    context: &Context,
    reference: &str,
    name: Option<&str>,
) -> Result<Exit, CommandError> {
    let reference = self::reference(reference)?;
    let name = name_for(name, reference.name())?;
    context.root.prepare()?;
    let store = ImageStore::open(context.root.path()).map_err(|e| CommandError::of(&e))?;
    let board = Board::new(context.err);
    let shown = Shown::new(&board, &name);
    let pulled = store
        .pull(&Registry::from_env(), &reference, &name, native_architecture(), &shown)
        .map_err(|e| CommandError::of(&e))?;
    board.finish();
    arrived(context, &store, &pulled.record, pulled.referrers, Some(&reference))
}

/// A reference as it is given on the command line.
pub(super) fn reference(text: &str) -> Result<Reference, CommandError> {
    text.parse::<Reference>().map_err(|e| CommandError::usage(e.to_string()))
}
