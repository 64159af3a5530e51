//! `kiln image verify --rebuild`: build anew from the lock, elsewhere, and compare.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_image::build::Built;
use kiln_image::compare;
use kiln_image::store::{ImageStore, Record};
use kiln_model::name::ComponentId;

use super::build::declared;
use super::verify::problems;
use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::{DifferenceDocument, RebuiltDocument, VerificationDocument};
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;

/// How many differences of an image are shown to people; the document has all.
const SHOWN: usize = 40;

pub(super) fn run(
    context: &Context,
    name: Option<&str>,
    variables: &Variables,
) -> Result<Exit, CommandError> {
    let draft = context.draft(variables, None)?;
    let only = name.map(|name| declared(&draft, name)).transpose()?;
    context.root.prepare()?;
    let root = context.root.path();
    let store = ImageStore::open(root).map_err(|e| CommandError::of(&e))?;
    let elsewhere = Elsewhere::new(root)?;
    let scratch = ImageStore::open(&elsewhere.path).map_err(|e| CommandError::of(&e))?;
    let board = Board::new(context.err);
    let built = draft.rebuild(root, &scratch, only.as_ref(), &ImageBoard::new(&board))?;
    board.finish();
    let mut found = problems(context, name)?;
    let open = draft.open_images();
    let mut rebuilt = Vec::new();
    for (id, built) in &built {
        match record_of(&store, built)? {
            None => found.push(format!("{id} is not in the store, so there is nothing to compare")),
            Some(record) => {
                let document = compared(&store, &record, &scratch, (id, built))?;
                rebuilt.push(RebuiltDocument { reproducible: !open.contains(id), ..document });
            }
        }
    }
    let identical = rebuilt.iter().all(|one| one.identical);
    let intact = found.is_empty() && identical;
    let document = VerificationDocument { intact, problems: found, rebuilt: Some(rebuilt) };
    context.print(&document, || text(&document))?;
    Ok(if intact { Exit::Done } else { Exit::Failed })
}

/// What the store has of the recipe and lock that something was built from.
fn record_of(store: &ImageStore, built: &Built) -> Result<Option<Record>, CommandError> {
    let found = store.find(&built.record.recipe).map_err(|e| CommandError::of(&e))?;
    Ok(found.filter(|record| record.builder == built.record.builder))
}

fn compared(
    store: &ImageStore,
    record: &Record,
    scratch: &ImageStore,
    (id, built): (&ComponentId, &Built),
) -> Result<RebuiltDocument, CommandError> {
    let (before, after) = (record.digest, built.record.digest);
    let mut differences = Vec::new();
    if before != after {
        let found = compare::images((store, &before), (scratch, &after));
        differences = found.map_err(|e| CommandError::of(&e))?;
    }
    let differences = differences.into_iter().map(|difference| DifferenceDocument {
        path: difference.path,
        what: difference.what.to_owned(),
        before: difference.before,
        after: difference.after,
    });
    Ok(RebuiltDocument {
        name: id.name.clone(),
        digest: before.to_string(),
        rebuilt: after.to_string(),
        identical: before == after,
        reproducible: true,
        differences: differences.collect(),
    })
}

fn text(document: &VerificationDocument) -> String {
    let mut lines = document.problems.clone();
    for image in document.rebuilt.iter().flatten() {
        let (name, digest) = (&image.name, &image.digest);
        if image.identical {
            lines.push(format!("image {name}: built anew, the same: {digest}"));
            continue;
        }
        lines
            .push(format!("image {name}: built anew, not the same: {digest} -> {}", image.rebuilt));
        if !image.reproducible {
            lines.push("  a step reaches the network, so that nothing else can be expected".into());
        }
        let shown = image.differences.iter().take(SHOWN);
        lines.extend(shown.map(|difference| {
            let DifferenceDocument { path, what, before, after } = difference;
            format!("  {path}: {what}: {before} -> {after}")
        }));
        if image.differences.len() > SHOWN {
            lines.push(format!("  and {} more (--json has all)", image.differences.len() - SHOWN));
        }
    }
    lines.join("\n")
}

/// A root to build in that is gone when dropped. What a crash leaves of it, the next build's
/// sweep takes: its name begins with the process's id.
struct Elsewhere {
    path: PathBuf,
}

impl Elsewhere {
    fn new(root: &Path) -> Result<Self, CommandError> {
        let path = root.join("cache/tmp").join(format!("{}-rebuild", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| {
            CommandError::failed(format!("{} cannot be made", path.display())).caused_by(&e)
        })?;
        Ok(Self { path })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // What can't be removed now, the next sweep finds.
        let _ = fs::remove_dir_all(&self.path);
    }
}
