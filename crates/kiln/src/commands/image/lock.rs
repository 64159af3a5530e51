//! `kiln image lock`: choose the inputs of a stack's images and write them down.

use std::fmt::Write as _;

use kiln_daemon::prepare::{Draft, Upgrade};
use kiln_image::lock::{EntryDifference, PackageChange, PackageDifference};

use super::build::declared;
use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::{LockDifferenceDocument, LockDocument, LockedPackageDocument};
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::ImageBoard;
use crate::render::table::Table;

/// `upgrade` is the name of the image that is to be upgraded, empty for all.
pub(super) fn run(
    context: &Context,
    upgrade: Option<&str>,
    variables: &Variables,
) -> Result<Exit, CommandError> {
    let mut draft = context.draft(variables, None)?;
    let only = upgrade.filter(|name| !name.is_empty());
    let only = only.map(|name| declared(&draft, name)).transpose()?;
    let upgrade = match (upgrade, only) {
        (None, _) => Upgrade::Nothing,
        (Some(_), None) => Upgrade::All,
        (Some(_), Some(image)) => Upgrade::Only(image),
    };
    context.root.prepare()?;
    let board = Board::new(context.err);
    draft.lock_with(context.root.path(), &upgrade, &ImageBoard::new(&board))?;
    board.finish();
    let differences: Vec<LockDifferenceDocument> =
        draft.lock_differences().iter().map(|difference| document(&draft, difference)).collect();
    let changed = draft.save_lock()?;
    let file = draft.directory.join(kiln_image::lock::FILE_NAME).display().to_string();
    let document = LockDocument { stack: draft.stack.to_string(), file, changed, differences };
    context.print(&document, || text(&document))?;
    Ok(Exit::Done)
}

fn document(draft: &Draft, difference: &EntryDifference) -> LockDifferenceDocument {
    LockDifferenceDocument {
        images: draft.images_of(&difference.request),
        suite: difference.request.suite.clone(),
        architecture: difference.request.architecture.clone(),
        new: difference.is_new,
        packages: difference.packages.iter().map(package).collect(),
    }
}

fn package(package: &PackageDifference) -> LockedPackageDocument {
    let change = match package.change {
        PackageChange::Added => "added",
        PackageChange::Removed => "removed",
        PackageChange::Upgraded => "upgraded",
        PackageChange::Downgraded => "downgraded",
        PackageChange::Altered => "altered",
    };
    LockedPackageDocument {
        name: package.name.clone(),
        architecture: package.architecture.clone(),
        source: package.source.clone(),
        change: change.to_owned(),
        from: package.from.clone(),
        to: package.to.clone(),
        suite: package.suite.clone(),
        repository: package.repository.clone(),
        security: package.security,
    }
}

fn text(document: &LockDocument) -> String {
    let mut text = String::new();
    for difference in &document.differences {
        text += &difference_text(difference);
    }
    let file = &document.file;
    // Writing to a string does not fail.
    let _ = if document.changed {
        writeln!(text, "Wrote {file}.")
    } else {
        writeln!(text, "{file} is as it was.")
    };
    text
}

fn difference_text(difference: &LockDifferenceDocument) -> String {
    let LockDifferenceDocument { images, suite, architecture, packages, .. } = difference;
    let images: Vec<String> = images.iter().map(|name| format!("image.{name}")).collect();
    let images = if images.is_empty() { "no image any more".to_owned() } else { images.join(", ") };
    let head = format!("{images} on {suite} for {architecture}");
    if difference.new {
        return format!("{head}: locked, {} packages\n", packages.len());
    }
    let mut table = Table::default();
    for package in packages {
        let sign = match package.change.as_str() {
            "added" => "+",
            "removed" => "-",
            _ => "~",
        };
        let version = match (&package.from, &package.to) {
            (Some(from), Some(to)) if from == to => format!("{to} (altered)"),
            (Some(from), Some(to)) => format!("{from} -> {to}"),
            (from, to) => from.as_ref().or(to.as_ref()).cloned().unwrap_or_default(),
        };
        let source = match &package.repository {
            Some(repository) => format!("source {}, repository {repository}", package.source),
            None => format!("source {}", package.source),
        };
        let security = if package.security { "security" } else { "" };
        let name = format!("{sign} {}", package.name);
        table.row([name.as_str(), version.as_str(), source.as_str(), security]);
    }
    let security = packages.iter().filter(|package| package.security).count();
    let count = packages.len();
    format!("{head}: {count} changed, {security} from security\n{}", table.render(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(
        name: &str,
        from: Option<&str>,
        to: Option<&str>,
        security: bool,
    ) -> LockedPackageDocument {
        let change = match (from, to) {
            (None, _) => PackageChange::Added,
            (_, None) => PackageChange::Removed,
            _ => PackageChange::Upgraded,
        };
        package(&PackageDifference {
            name: name.to_owned(),
            architecture: "amd64".to_owned(),
            source: "src".to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            suite: "bookworm".to_owned(),
            repository: None,
            change,
            security,
        })
    }

    #[test]
    fn a_difference_reads_as_packages() {
        let difference = LockDifferenceDocument {
            images: vec!["web".to_owned()],
            suite: "bookworm".to_owned(),
            architecture: "amd64".to_owned(),
            new: false,
            packages: vec![
                changed("libssl3", Some("3.0.1"), Some("3.0.2"), true),
                changed("new", None, Some("1"), false),
                changed("old", Some("1"), None, false),
            ],
        };
        assert_eq!(
            difference_text(&difference),
            "image.web on bookworm for amd64: 3 changed, 1 from security\n  \
             ~ libssl3  3.0.1 -> 3.0.2  source src  security\n  \
             + new      1               source src\n  \
             - old      1               source src\n"
        );
    }
}
