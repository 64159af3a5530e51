//! `kiln image export`: write an image as an OCI layout.

use std::path::Path;

use super::record;
use crate::context::Context;
use crate::document::exchange::ExportDocument;
use crate::error::{CommandError, Exit};

pub(super) fn run(context: &Context, name: &str, path: &Path) -> Result<Exit, CommandError> {
    let (store, record) = record(context, name)?;
    let blobs =
        store.export(&record.digest, &record.name, path).map_err(|e| CommandError::of(&e))?;
    let document = ExportDocument {
        name: record.name,
        digest: record.digest.to_string(),
        path: path.display().to_string(),
        blobs,
    };
    context.print(&document, || {
        format!("{} is in {} with the digest {}.", document.name, document.path, document.digest)
    })?;
    Ok(Exit::Done)
}
