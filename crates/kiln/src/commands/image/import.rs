//! `kiln image import`: take in an image of an OCI layout.

use std::path::Path;

use kiln_image::debian::suite::native_architecture;
use kiln_image::oci::layout::split_tag;
use kiln_image::store::ImageStore;

use super::{Shown, arrived, name_for};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::Board;

pub(super) fn run(context: &Context, path: &str, name: Option<&str>) -> Result<Exit, CommandError> {
    // A file that is there is meant as a whole, whatever its name has in it.
    let (path, tag) = if Path::new(path).exists() { (path, None) } else { split_tag(path) };
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = name_for(name, tag.unwrap_or(&stem))?;
    context.root.prepare()?;
    let store = ImageStore::open(context.root.path()).map_err(|e| CommandError::of(&e))?;
    let board = Board::new(context.err);
    let shown = Shown::new(&board, &name);
    let (record, referrers) = store
        .import(Path::new(path), tag, &name, native_architecture(), &shown)
        .map_err(|e| CommandError::of(&e))?;
    board.finish();
    arrived(context, &store, &record, referrers, None)
}
