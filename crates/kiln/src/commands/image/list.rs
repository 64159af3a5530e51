//! `kiln image list` and `kiln image show`.

use super::{document, record, store, table};
use crate::context::Context;
use crate::document::image::{ImageDetailDocument, ImagesDocument};
use crate::error::{CommandError, Exit};
use crate::progress::image::size;
use crate::render::table::Table;

pub(super) fn list(context: &Context) -> Result<Exit, CommandError> {
    let records = store(context)?.map(|store| store.list()).transpose();
    let records = records.map_err(|e| CommandError::of(&e))?.unwrap_or_default();
    let document = ImagesDocument { images: records.iter().map(document).collect() };
    context.print(&document, || table(&document))?;
    Ok(Exit::Done)
}

pub(super) fn show(context: &Context, name: &str) -> Result<Exit, CommandError> {
    let (store, record) = record(context, name)?;
    let files = store.get(&record.digest).map_err(|e| CommandError::of(&e))?;
    let detail = ImageDetailDocument {
        image: document(&record),
        file: files.erofs.display().to_string(),
        file_digest: files.erofs_digest.to_string(),
        user: files.config.user,
        env: files.config.env,
        entrypoint: files.config.entrypoint,
        working_dir: files.config.working_dir,
    };
    context.print(&detail, || {
        let mut table = Table::default();
        table.row(["name", &detail.image.name]);
        table.row(["digest", &detail.image.digest]);
        table.row(["recipe", &detail.image.recipe]);
        table.row(["size", &size(detail.image.size)]);
        table.row(["file", &detail.file]);
        table.row(["entrypoint", &detail.entrypoint.join(" ")]);
        table.row(["user", &detail.user]);
        table.render(0)
    })?;
    Ok(Exit::Done)
}
