//! The canonical form of configuration files, as `kiln fmt` writes it.
//!
//! Line breaks stay where the author put them. What is settled is all else: two blanks of
//! indentation for each level, blanks between tokens, at most one empty line in a row, and `=` and
//! trailing comments that stand below each other. Strings, heredocs and comments keep their text.
//! The form of a canonical text is the text itself, and its meaning is that of the original.

mod layout;
mod lines;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostics, Report};
use crate::stack::files::{configuration_files, read_text};
use crate::syntax::parse_body_traced;
use crate::syntax::span::Sources;

/// The canonical form of `text`, or what keeps it from being read. `path` is its name in messages.
pub fn format(path: &Path, text: &str) -> Result<String, Report> {
    let mut sources = Sources::default();
    let file = sources.add(path, text);
    let mut diagnostics = Diagnostics::new();
    let (_, trace) = parse_body_traced(file, text, &mut diagnostics);
    if diagnostics.has_errors() {
        diagnostics.settle();
        return Err(Report { sources, diagnostics });
    }
    Ok(layout::lay_out(&lines::lines(text, &trace)))
}

/// A file and its canonical form.
#[derive(Clone, Debug)]
pub struct Formatted {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub before: String,
    /// Its canonical form.
    pub after: String,
}

impl Formatted {
    /// Whether the file is not in canonical form.
    pub fn is_changed(&self) -> bool {
        self.before != self.after
    }

    /// Writes the canonical form, so that the file is at each moment the old or the new one.
    pub fn write(&self) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let beside = self.path.with_file_name(name);
        fs::write(&beside, &self.after)
            .and_then(|()| fs::set_permissions(&beside, fs::metadata(&self.path)?.permissions()))
            .and_then(|()| fs::rename(&beside, &self.path))
            .inspect_err(|_| drop(fs::remove_file(&beside)))
    }
}

/// Formats the configuration files of a stack's directory and its files of variables, in the
/// order of their names. Nothing is written; what cannot be read is in the report, all of it.
pub fn fmt_dir(directory: &Path) -> Result<Vec<Formatted>, Report> {
    let mut report = Report::default();
    let mut formatted = Vec::new();
    let files = match configuration_files(directory) {
        Ok(files) => files,
        Err(diagnostic) => return Err(Report { diagnostics: diagnostic.into(), ..report }),
    };
    for path in files.stack.into_iter().chain(files.variables) {
        let before = match read_text(&path) {
            Ok(text) => text,
            Err(diagnostic) => {
                report.diagnostics.push(diagnostic);
                continue;
            }
        };
        let file = report.sources.add(&path, before.as_str());
        let (_, trace) = parse_body_traced(file, &before, &mut report.diagnostics);
        let after = layout::lay_out(&lines::lines(&before, &trace));
        formatted.push(Formatted { path, before, after });
    }
    report.diagnostics.settle();
    if report.diagnostics.has_errors() { Err(report) } else { Ok(formatted) }
}
