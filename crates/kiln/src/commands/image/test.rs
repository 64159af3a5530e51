//! `kiln image test`: build the images of a stack and run their tests.

use std::thread;

use kiln_daemon::prepare::{Draft, ImageProgress};
use kiln_image::progress::{Event, Progress};
use kiln_image::store::{ImageStore, Record};
use kiln_image::trial::{Stop, run_tests};
use kiln_local::laboratory::LocalLaboratory;
use kiln_model::name::ComponentId;
use tokio::signal::unix::{SignalKind, signal};

use super::build::declared;
use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::{TestDocument, TestedImage, TestsDocument};
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;
use crate::render::style::Palette;

pub(super) fn run(
    context: &Context,
    name: Option<&str>,
    variables: &Variables,
) -> Result<Exit, CommandError> {
    let mut draft = context.draft(variables, None)?;
    let only = name.map(|name| declared(&draft, name)).transpose()?;
    context.root.prepare()?;
    let board = Board::new(context.err);
    let shown = ImageBoard::new(&board);
    draft.lock(context.root.path(), false, &shown)?;
    let built = draft.build(context.root.path(), only.as_ref(), &shown)?;
    draft.save_lock()?;
    let program = kiln_daemon::server::own_program()
        .map_err(|e| CommandError::failed("this program cannot be found").caused_by(&e))?;
    let store = ImageStore::open(context.root.path()).map_err(|e| CommandError::of(&e))?;
    let laboratory = LocalLaboratory::new(context.root.path(), &program);
    let stop = stop_at_signals()?;
    let mut images = Vec::new();
    for (id, record) in &built {
        images.push(tested(&draft, id, record, &store, &laboratory, &shown, &stop)?);
    }
    board.finish();
    let document = TestsDocument { passed: images.iter().all(|image| image.passed), images };
    context.print(&document, || table(&document, context.out))?;
    Ok(if document.passed { Exit::Done } else { Exit::Failed })
}

/// The progress of one image.
struct Of<'a>(&'a ComponentId, &'a ImageBoard<'a>);

impl Progress for Of<'_> {
    fn event(&self, event: Event<'_>) {
        self.1.event(Some(self.0), event);
    }
}

fn tested(
    draft: &Draft,
    id: &ComponentId,
    record: &Record,
    store: &ImageStore,
    laboratory: &LocalLaboratory,
    shown: &ImageBoard<'_>,
    stop: &Stop,
) -> Result<TestedImage, CommandError> {
    // What is tested is what was built: every byte of it.
    let image = store.verify_image(&record.digest).map_err(|e| CommandError::of(&e))?;
    let reports = run_tests(laboratory, &image, draft.tests(id), &Of(id, shown), stop);
    Ok(TestedImage {
        name: record.name.clone(),
        digest: record.digest.to_string(),
        passed: reports.iter().all(|report| report.passed),
        tests: reports.into_iter().map(TestDocument::from).collect(),
    })
}

/// Set by the first signal that asks this program to end; the second ends it as ever.
fn stop_at_signals() -> Result<Stop, CommandError> {
    let stop = Stop::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed =
        |e: &std::io::Error| CommandError::failed("signals cannot be received").caused_by(e);
    let runtime = runtime.map_err(|e| failed(&e))?;
    let signals = {
        let _inside = runtime.enter();
        let of = |kind| signal(kind);
        of(SignalKind::interrupt())
            .and_then(|interrupt| Ok((interrupt, of(SignalKind::terminate())?)))
    };
    let (mut interrupt, mut terminate) = signals.map_err(|e| failed(&e))?;
    let told = stop.clone();
    thread::spawn(move || {
        runtime.block_on(async {
            for first in [true, false] {
                let status = tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                };
                if first {
                    told.set();
                } else {
                    std::process::exit(status);
                }
            }
        });
    });
    Ok(stop)
}

/// What came of the tests, for a person: more of those that have failed.
fn table(document: &TestsDocument, palette: Palette) -> String {
    let mut text = String::new();
    for image in &document.images {
        text += &format!("{}\n", palette.bold(&format!("image.{}", image.name)));
        if image.tests.is_empty() {
            text += "  no tests\n";
        }
        let width = image.tests.iter().map(|test| test.name.chars().count()).max().unwrap_or(0);
        for test in &image.tests {
            let mark = if test.passed { palette.green("✓") } else { palette.red("✗") };
            let padding = " ".repeat(width - test.name.chars().count());
            text += &format!("  {mark} {}{padding}  {} ms\n", test.name, test.milliseconds);
            if !test.passed {
                text += &failure(test, palette);
            }
        }
    }
    text
}

fn failure(test: &TestDocument, palette: Palette) -> String {
    let mut text = String::new();
    if let Some(problem) = &test.problem {
        text += &format!("      {problem}\n");
    }
    for check in test.checks.iter().filter(|check| !check.passed) {
        text += &format!("      expected  {}\n      found     {}\n", check.expected, check.found);
    }
    if let Some(ended) = &test.ended {
        text += &format!("      the program {ended}\n");
    }
    if !test.log.is_empty() {
        text += "      its last lines:\n";
    }
    for line in &test.log {
        text += &format!("      {} {line}\n", palette.dim("|"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::image::CheckDocument;

    #[test]
    fn a_failed_test_says_what_was_expected_and_what_was_found() {
        let test = |name: &str, passed| TestDocument {
            name: name.to_owned(),
            passed,
            milliseconds: 120,
            checks: vec![CheckDocument {
                passed,
                expected: "GET / on port 80 gives 200".to_owned(),
                found: "status 500".to_owned(),
            }],
            problem: None,
            ended: (!passed).then(|| "exited with status 1".to_owned()),
            log: if passed { vec![] } else { vec!["no such file".to_owned()] },
        };
        let image = TestedImage {
            name: "web".to_owned(),
            digest: "sha256:0".to_owned(),
            passed: false,
            tests: vec![test("answers", true), test("fails", false)],
        };
        let document = TestsDocument { passed: false, images: vec![image] };
        let expected = "image.web\n  ✓ answers  120 ms\n  ✗ fails    120 ms\n      \
            expected  GET / on port 80 gives 200\n      found     status 500\n      \
            the program exited with status 1\n      its last lines:\n      | no such file\n";
        assert_eq!(table(&document, Palette::plain()), expected);
    }
}
