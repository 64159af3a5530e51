//! `kiln image sbom`: the bill of materials of an image.

use kiln_image::attest::Kind;

use super::record;
use super::standing::Judge;
use crate::context::{Context, to_json};
use crate::error::{CommandError, Exit};

/// The forms in which it can be had.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// SPDX 2.3 as JSON
    #[default]
    Spdx,
}

pub(super) fn run(context: &Context, name: &str, format: Format) -> Result<Exit, CommandError> {
    let Format::Spdx = format;
    let (store, record) = record(context, name)?;
    let judge = Judge::new(context, &store);
    let found = judge.trusted(&record.digest, Kind::Sbom)?.ok_or_else(|| {
        let text = format!("image {name} has no bill of materials that a trusted key has signed");
        CommandError::failed(text)
            .with_help("`kiln image build` makes one when the image is admitted")
    })?;
    // It is a JSON document of its own, with --json and without.
    let text = to_json(&found.predicate)?;
    context.print(&found.predicate, || text)?;
    Ok(Exit::Done)
}
