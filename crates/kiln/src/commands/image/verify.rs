//! `kiln image verify`: read every byte and compare it with its digest.

use kiln_image::store::Record;

use super::{records, store};
use crate::context::Context;
use crate::document::image::VerificationDocument;
use crate::error::{CommandError, Exit};

pub(super) fn run(context: &Context, name: Option<&str>) -> Result<Exit, CommandError> {
    let problems: Vec<String> = if let Some(name) = name {
        let (store, records) = records(context, name)?;
        let wrong = |record: &Record| {
            let error = store.verify_image(&record.digest).err()?;
            Some(format!("image {name} ({}): {error}", record.digest))
        };
        records.iter().filter_map(wrong).collect()
    } else {
        let problems = store(context)?.map(|store| store.verify()).transpose();
        let problems = problems.map_err(|e| CommandError::of(&e))?.unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    };
    let document = VerificationDocument { intact: problems.is_empty(), problems };
    context.print(&document, || {
        if document.intact {
            "Everything in the image store is what its digest says.".to_owned()
        } else {
            document.problems.join("\n")
        }
    })?;
    Ok(if document.intact { Exit::Done } else { Exit::Failed })
}
