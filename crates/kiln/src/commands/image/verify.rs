//! `kiln image verify`: read every byte, and check signatures, records and keys.

use kiln_image::audit;
use kiln_image::sign::Signing;

use super::{chain, records, store};
use crate::context::Context;
use crate::document::image::VerificationDocument;
use crate::error::{CommandError, Exit};

pub(super) fn run(context: &Context, name: Option<&str>) -> Result<Exit, CommandError> {
    let problems = problems(context, name)?;
    let document = VerificationDocument { intact: problems.is_empty(), problems, rebuilt: None };
    context.print(&document, || {
        if document.intact {
            "Everything in the image store is what its digest says.".to_owned()
        } else {
            document.problems.join("\n")
        }
    })?;
    Ok(if document.intact { Exit::Done } else { Exit::Failed })
}

/// What is wrong with all images, or with those of one name.
pub(super) fn problems(context: &Context, name: Option<&str>) -> Result<Vec<String>, CommandError> {
    let signing = Signing::of_root(context.root.path());
    let mut faults = Vec::new();
    if let Some(name) = name {
        let (store, records) = records(context, name)?;
        for record in &records {
            let found = audit::image(&store, &signing, record);
            faults.extend(found.map_err(|e| CommandError::of(&e))?);
        }
    } else if let Some(store) = store(context)? {
        faults = audit::everything(&store, &signing).map_err(|e| CommandError::of(&e))?;
    }
    let mut problems: Vec<String> = faults.iter().map(|fault| chain(fault)).collect();
    problems.dedup();
    Ok(problems)
}
