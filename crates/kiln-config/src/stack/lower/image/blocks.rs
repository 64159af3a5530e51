//! The blocks inside an `image` block, sorted by what they are about.

use kiln_model::spec::image::{ImageTest, Repository, Step};
use rustc_hash::FxHashMap;

use super::{archive, check, steps};
use crate::diagnostic::Diagnostic;
use crate::stack::lower::Reader;
use crate::stack::lower::nested::Nested;
use crate::syntax::span::Span;

/// What the blocks say, each sort in the order in which they stand.
#[derive(Default)]
pub(super) struct Blocks {
    pub(super) steps: Vec<Step>,
    pub(super) repositories: Vec<Repository>,
    pub(super) tests: Vec<ImageTest>,
}

/// All blocks of an image; `None` where one is wrong, which has been reported.
pub(super) fn blocks(reader: &Reader<'_>) -> Option<Blocks> {
    let mut blocks = Blocks::default();
    let mut complete = true;
    // Repositories and tests go by their names.
    let mut names: FxHashMap<(String, String), Span> = FxHashMap::default();
    reader.each_block(|nested| {
        let Some((label, span)) = label(nested) else {
            complete = false;
            return;
        };
        if matches!(nested.kind, "repository" | "test") {
            let key = (nested.kind.to_owned(), label.to_owned());
            if let Some(first) = names.insert(key, span) {
                let summary = format!("{} {label:?} is declared twice", nested.kind);
                let diagnostic = Diagnostic::error(span, summary);
                reader.world.report(diagnostic.with_related(first, "first declared here"));
                complete = false;
            }
        }
        let read = match nested.kind {
            "repository" => archive::repository(&nested.reader, label, span)
                .map(|repository| blocks.repositories.push(repository)),
            "test" => check::test(&nested.reader, label).map(|test| blocks.tests.push(test)),
            _ => steps::step(nested, label, span).map(|step| blocks.steps.push(step)),
        };
        complete &= read.is_some();
    });
    complete.then_some(blocks)
}

fn label<'n>(nested: &'n Nested<'_>) -> Option<(&'n str, Span)> {
    if let Some((label, span)) = &nested.label {
        return Some((label, *span));
    }
    let summary = format!("this `{}` block has no label", nested.kind);
    let diagnostic = Diagnostic::error(nested.reader.header, summary);
    nested.reader.world.report(diagnostic.with_label(match nested.kind {
        "copy" => "expected the path in the stack's directory: `copy \"site/\" {`",
        "user" => "expected the user's name: `user \"app\" {`",
        "group" => "expected the group's name: `group \"app\" {`",
        "run" => "expected what it is called: `run \"compile\" {`",
        "test" => "expected what it is called: `test \"answers\" {`",
        "repository" => "expected what it is called: `repository \"pgdg\" {`",
        _ => "expected the path in the image",
    }));
    None
}
