//! Progress on standard error: lines that stay, and on a terminal a few below them that are
//! drawn anew.

pub(crate) mod change;
pub(crate) mod image;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_engine::clock::{Clock as _, SystemClock};

use crate::render::style::Palette;

/// The least time between two drawings of the lines below.
const FRAME: Duration = Duration::from_millis(80);

/// Where progress is shown.
#[derive(Debug)]
pub(crate) struct Board {
    terminal: bool,
    palette: Palette,
    drawn: Mutex<Drawn>,
}

#[derive(Debug)]
struct Drawn {
    lines: usize,
    at: Option<Instant>,
}

impl Board {
    pub(crate) fn new(palette: Palette) -> Self {
        let drawn = Mutex::new(Drawn { lines: 0, at: None });
        Self { terminal: io::stderr().is_terminal(), palette, drawn }
    }

    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    /// Whether lines can be drawn anew.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal
    }

    /// Adds a line that stays. Where nobody watches a terminal it begins with the time.
    pub(crate) fn line(&self, text: &str) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = clear(&mut drawn);
        if self.terminal {
            out.push_str(text);
        } else {
            let now = SystemClock.now().to_string();
            let _ = write!(out, "{} {text}", &now[11..23]);
        }
        out.push('\n');
        show(&out);
    }

    /// Draws the lines below anew. Only on a terminal; not more often than a person sees.
    pub(crate) fn below(&self, lines: &[String]) {
        if !self.terminal {
            return;
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.at.is_some_and(|at| at.elapsed() < FRAME) && drawn.lines == lines.len() {
            return;
        }
        let (width, height) = size();
        let mut out = clear(&mut drawn);
        for line in lines.iter().take(height.saturating_sub(2)) {
            out.push_str(&cut(line, width));
            out.push('\n');
            drawn.lines += 1;
        }
        drawn.at = Some(Instant::now());
        show(&out);
    }

    /// Takes the lines below away.
    pub(crate) fn finish(&self) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        show(&clear(&mut drawn));
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Goes up over what is drawn and clears to the end of the screen.
fn clear(drawn: &mut Drawn) -> String {
    let lines = std::mem::take(&mut drawn.lines);
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

fn show(text: &str) {
    if !text.is_empty() {
        // Nobody watching is no error.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (80, 24),
    }
}

/// The line, cut to the terminal's width. Sequences that set colors take no room.
fn cut(line: &str, width: usize) -> String {
    let mut cut = String::with_capacity(line.len());
    let (mut shown, mut escape) = (0, false);
    for c in line.chars() {
        if c == '\x1b' {
            escape = true;
        }
        if escape {
            cut.push(c);
            escape = c != 'm';
            continue;
        }
        if shown + 1 >= width {
            continue;
        }
        shown += 1;
        cut.push(c);
    }
    cut
}

/// A bar of `width` columns, so much of it filled.
pub(crate) fn bar(done: u64, total: u64, width: usize) -> String {
    let share = (done.min(total) * width as u64).checked_div(total).unwrap_or(0);
    let filled = usize::try_from(share).unwrap_or(width);
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_keep_their_colors() {
        assert_eq!(cut("abcdef", 4), "abc");
        assert_eq!(cut("\x1b[1mabcdef\x1b[0m", 4), "\x1b[1mabc\x1b[0m");
    }

    #[test]
    fn bars_are_as_long_as_they_should_be() {
        assert_eq!(bar(1, 3, 6), "██░░░░");
        assert_eq!(bar(9, 3, 4), "████");
        assert_eq!(bar(0, 0, 4), "░░░░");
    }
}
