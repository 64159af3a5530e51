//! `kiln image test`: build the images of a stack and run their tests.

use std::fmt::Write as _;

use kiln_daemon::prepare::Tested;

use super::build::declared;
use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::{TestDocument, TestedImage, TestsDocument};
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;
use crate::render::style::Palette;
use crate::signals::Signals;

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
    let signals = Signals::attend()?;
    let tested = draft.test(context.root.path(), only.as_ref(), &shown, signals.stop())?;
    draft.save_lock()?;
    let images: Vec<TestedImage> = tested.into_values().map(tested_image).collect();
    board.finish();
    let document = TestsDocument { passed: images.iter().all(|image| image.passed), images };
    context.print(&document, || table(&document, context.out))?;
    Ok(if document.passed { Exit::Done } else { Exit::Failed })
}

fn tested_image(tested: Tested) -> TestedImage {
    TestedImage {
        name: tested.record.name,
        digest: tested.record.digest.to_string(),
        passed: tested.reports.iter().all(|report| report.passed),
        tests: tested.reports.into_iter().map(TestDocument::from).collect(),
    }
}

/// What came of the tests, for a person: more of those that have failed.
fn table(document: &TestsDocument, palette: Palette) -> String {
    let mut text = String::new();
    for image in &document.images {
        let _ = writeln!(text, "{}", palette.bold(&format!("image.{}", image.name)));
        if image.tests.is_empty() {
            text += "  no tests\n";
        }
        let width = image.tests.iter().map(|test| test.name.chars().count()).max().unwrap_or(0);
        for test in &image.tests {
            let mark = if test.passed { palette.green("✓") } else { palette.red("✗") };
            let padding = " ".repeat(width - test.name.chars().count());
            let _ = writeln!(text, "  {mark} {}{padding}  {} ms", test.name, test.milliseconds);
            if !test.passed {
                text += &failure(test, palette);
            }
        }
    }
    text
}

fn failure(failed: &TestDocument, palette: Palette) -> String {
    let mut text = String::new();
    if let Some(problem) = &failed.problem {
        let _ = writeln!(text, "      {problem}");
    }
    for check in failed.checks.iter().filter(|check| !check.passed) {
        let _ =
            writeln!(text, "      expected  {}\n      found     {}", check.expected, check.found);
    }
    if let Some(ended) = &failed.ended {
        let _ = writeln!(text, "      the program {ended}");
    }
    if !failed.log.is_empty() {
        text += "      its last lines:\n";
    }
    for line in &failed.log {
        let _ = writeln!(text, "      {} {line}", palette.dim("|"));
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
