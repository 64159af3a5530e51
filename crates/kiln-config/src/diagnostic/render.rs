//! Messages as text for people: summary, place, source line with the range underlined, help.

use std::fmt::Write as _;

use super::{Diagnostic, Diagnostics, Severity};
use crate::syntax::span::{Position, Source, Sources, Span};

/// The messages of one run with the sources that they point into.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The sources.
    pub sources: Sources,
    /// The messages, in the order of their places.
    pub diagnostics: Diagnostics,
}

/// Where a message points, as people count it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location<'s> {
    /// The source.
    pub source: &'s Source,
    /// First character of the range.
    pub start: Position,
    /// Behind its last character.
    pub end: Position,
}

impl std::error::Error for Report {}

impl std::fmt::Display for Report {
    /// All messages, without color.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Report {
    /// The place of a message, if it has one.
    pub fn locate(&self, diagnostic: &Diagnostic) -> Option<Location<'_>> {
        let span = diagnostic.span?;
        let source = self.sources.get(span.file)?;
        let (start, end) = (source.position(span.start), source.position(span.end));
        Some(Location { source, start, end })
    }

    /// All messages as text, an empty line behind each; with `color`, ANSI colors.
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            Renderer { sources: &self.sources, color, out: &mut out }.diagnostic(diagnostic);
            out.push('\n');
        }
        out
    }
}

/// The most characters of a source line that are shown.
const WIDEST_LINE: usize = 160;
/// The characters before the range that are shown of a longer line.
const LEAD: usize = 40;

const BOLD_RED: &str = "\x1b[1;31m";
const BOLD_YELLOW: &str = "\x1b[1;33m";
const BOLD_BLUE: &str = "\x1b[1;34m";
const BOLD_CYAN: &str = "\x1b[1;36m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

struct Renderer<'r> {
    sources: &'r Sources,
    color: bool,
    out: &'r mut String,
}

impl Renderer<'_> {
    fn diagnostic(&mut self, diagnostic: &Diagnostic) {
        let (word, style) = match diagnostic.severity {
            Severity::Error => ("error", BOLD_RED),
            Severity::Warning => ("warning", BOLD_YELLOW),
        };
        self.styled(style, word);
        self.styled(BOLD, &format!(": {}", clean(&diagnostic.summary)));
        self.out.push('\n');
        let label = diagnostic.label.as_deref().unwrap_or_default();
        match diagnostic.span {
            Some(span) => self.snippet(span, label, '^', style),
            None if !label.is_empty() => self.line(&format!("  {}", clean(label))),
            None => {}
        }
        for related in &diagnostic.related {
            self.styled(BOLD_BLUE, "note");
            self.line(&format!(": {}", clean(&related.message)));
            self.snippet(related.span, "", '-', BOLD_BLUE);
        }
        for help in &diagnostic.help {
            self.styled(BOLD_CYAN, "help");
            self.line(&format!(": {}", clean(help)));
        }
    }

    /// The place and its line, with the part of the range that is on it underlined.
    fn snippet(&mut self, span: Span, label: &str, mark: char, style: &str) {
        let Some(source) = self.sources.get(span.file) else { return };
        let Position { line, column } = source.position(span.start);
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let path = source.path().display().to_string();
        self.styled(BOLD_BLUE, &format!("{margin}--> "));
        self.line(&format!("{}:{line}:{column}", clean(&path)));
        let (text, line_start) = source.line_at(span.start);
        let from = (span.start - line_start) as usize;
        let to = ((span.end.max(span.start) - line_start) as usize).min(text.len()).max(from);
        let Excerpt { shown, lead, width } = excerpt(text, from.min(text.len()), to);
        self.styled(BOLD_BLUE, &format!("{margin} |"));
        self.out.push('\n');
        self.styled(BOLD_BLUE, &format!("{number} |"));
        self.line(if shown.is_empty() { String::new() } else { format!(" {shown}") }.as_str());
        self.styled(BOLD_BLUE, &format!("{margin} |"));
        self.out.push_str(&" ".repeat(lead + 1));
        let marks: String = std::iter::repeat_n(mark, width.max(1)).collect();
        let label = clean(label);
        let gap = if label.is_empty() { "" } else { " " };
        self.styled(style, &format!("{marks}{gap}{label}"));
        self.out.push('\n');
    }

    fn styled(&mut self, style: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = if self.color {
            write!(self.out, "{style}{text}{RESET}")
        } else {
            self.out.write_str(text)
        };
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }
}

/// What is shown of a line, the characters before the range and those of it.
struct Excerpt {
    shown: String,
    lead: usize,
    width: usize,
}

fn excerpt(text: &str, from: usize, to: usize) -> Excerpt {
    let parts = [text.get(..from), text.get(from..to), text.get(to..)];
    let [mut before, mut range, mut after] = parts.map(|part| expand(part.unwrap_or_default()));
    let mut room = WIDEST_LINE;
    let length = |text: &str| text.chars().count();
    if length(&before) + length(&range) + length(&after) > WIDEST_LINE {
        before = keep_end(&before, LEAD);
        room -= length(&before);
        range = keep_start(&range, room);
        room = room.saturating_sub(length(&range));
        after = keep_start(&after, room);
    }
    let (lead, width) = (length(&before), length(&range));
    Excerpt { shown: format!("{before}{range}{after}").trim_end().to_owned(), lead, width }
}

fn keep_start(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn keep_end(text: &str, most: usize) -> String {
    let skipped = text.chars().count().saturating_sub(most);
    if skipped == 0 {
        return text.to_owned();
    }
    ['…'].into_iter().chain(text.chars().skip(skipped + 1)).collect()
}

/// Tabs as four blanks, and what would drive the terminal as a visible character.
fn expand(text: &str) -> String {
    clean(&text.replace('\t', "    "))
}

fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, start: u32, end: u32) -> Report {
        let mut sources = Sources::default();
        let file = sources.add("a.kiln.hcl", text);
        let span = Span::new(file, start, end);
        let diagnostic = Diagnostic::error(span, "bad").with_label("expected good");
        Report { sources, diagnostics: diagnostic.with_help("do good").into() }
    }

    #[test]
    fn the_range_is_underlined() {
        let expected = "error: bad\n --> a.kiln.hcl:2:5\n  |\n2 | a = bad\n  |     ^^^ expected good\n\
                        help: do good\n\n";
        assert_eq!(report("x = 1\na = bad\n", 10, 13).render(false), expected);
    }

    #[test]
    fn a_range_over_several_lines_is_underlined_on_its_first() {
        let text = report("a = [\n1\n]", 4, 9).render(false);
        assert!(text.contains("1 | a = [\n  |     ^ expected"), "{text}");
    }

    #[test]
    fn long_lines_and_control_characters_are_tamed() {
        let line = format!("a = \"{}\x1b[31m\"", "x".repeat(5000));
        let text = report(&line, 3000, 3003).render(false);
        assert!(text.lines().all(|line| line.chars().count() < 200), "{text}");
        assert!(!report("a = \x1b[31m", 4, 5).render(false).contains('\x1b'));
    }

    #[test]
    fn places_outside_the_text_do_no_harm() {
        assert!(report("a", 1, 1).render(true).contains("1:2"));
        assert!(report("é", 1, 9).render(false).contains("a.kiln.hcl"));
    }
}
