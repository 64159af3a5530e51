//! `kiln image push`: bring an image to a registry.

use kiln_image::oci::reference::Reference;
use kiln_image::oci::registry::Registry;

use super::{Shown, record};
use crate::context::Context;
use crate::document::exchange::PushDocument;
use crate::error::{CommandError, Exit};
use crate::progress::Board;

pub(super) fn run(context: &Context, name: &str, reference: &str) -> Result<Exit, CommandError> {
    let reference: Reference = super::pull::reference(reference)?;
    let (store, record) = record(context, name)?;
    let board = Board::new(context.err);
    let shown = Shown::new(&board, &record.name);
    let pushed = store
        .push(&Registry::from_env(), &record.digest, &reference, &shown)
        .map_err(|e| CommandError::of(&e))?;
    board.finish();
    let document = PushDocument {
        name: record.name,
        reference: reference.to_string(),
        digest: pushed.digest.to_string(),
        referrers: pushed.referrers,
    };
    context.print(&document, || {
        format!("{} is {} with the digest {}.", document.name, document.reference, document.digest)
    })?;
    Ok(Exit::Done)
}
