//! `kiln image list` and `kiln image show`.

use super::standing::Judge;
use super::{document, record, store, table};
use crate::context::Context;
use crate::document::image::{ImageDetailDocument, ImagesDocument, PassedDocument};
use crate::error::{CommandError, Exit};
use crate::progress::image::size;
use crate::render::table::Table;

pub(super) fn list(context: &Context) -> Result<Exit, CommandError> {
    let mut images = Vec::new();
    if let Some(store) = store(context)? {
        let judge = Judge::new(context, &store);
        let records = store.list().map_err(|e| CommandError::of(&e))?;
        images.extend(records.iter().map(|record| document(&judge, record)));
    }
    let document = ImagesDocument { images };
    context.print(&document, || table(&document))?;
    Ok(Exit::Done)
}

pub(super) fn show(context: &Context, name: &str) -> Result<Exit, CommandError> {
    let (store, record) = record(context, name)?;
    let files = store.get(&record.digest).map_err(|e| CommandError::of(&e))?;
    let judge = Judge::new(context, &store);
    let admission = judge.admission(&record.digest)?;
    let passed = admission.iter().flat_map(|admission| &admission.tests.passed);
    let detail = ImageDetailDocument {
        image: document(&judge, &record),
        file: files.erofs.display().to_string(),
        file_digest: files.erofs_digest.to_string(),
        user: files.config.user,
        env: files.config.env,
        entrypoint: files.config.entrypoint,
        working_dir: files.config.working_dir,
        tests: passed
            .map(|passed| PassedDocument {
                name: passed.name.clone(),
                checks: passed.checks.len(),
                milliseconds: passed.time.0,
            })
            .collect(),
        admitted_at: admission.as_ref().map(|admission| admission.admitted_at.clone()),
        reproducible: admission.as_ref().map(|admission| admission.reproducible),
        packages: judge.packages(&record.digest)?,
    };
    context.print(&detail, || text(&detail))?;
    Ok(Exit::Done)
}

fn text(detail: &ImageDetailDocument) -> String {
    let image = &detail.image;
    let mut table = Table::default();
    table.row(["name", &image.name]);
    table.row(["digest", &image.digest]);
    table.row(["recipe", &image.recipe]);
    table.row(["size", &size(image.size)]);
    table.row(["file", &detail.file]);
    table.row(["entrypoint", &detail.entrypoint.join(" ")]);
    table.row(["user", &detail.user]);
    match (&detail.admitted_at, &image.because) {
        (Some(at), None) => table.row(["admitted", at]),
        (_, because) => table.row(["not admitted", because.as_deref().unwrap_or_default()]),
    }
    table.row(["signed by", image.signed_by.as_deref().unwrap_or("nobody")]);
    if let Some(packages) = detail.packages {
        table.row(["packages", &packages.to_string()]);
    }
    if let Some(reproducible) = detail.reproducible {
        table.row(["reproducible", if reproducible { "yes" } else { "no: it used the network" }]);
    }
    for test in &detail.tests {
        let text = format!("{} ({} checks, {} ms)", test.name, test.checks, test.milliseconds);
        table.row(["passed", &text]);
    }
    table.render(0)
}
