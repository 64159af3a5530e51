//! Medians with their spread, and tables of them.

use std::fmt::Write as _;
use std::time::Duration;

/// Several measurements of one thing, in order.
#[derive(Debug, Clone)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    /// Those of some times, in seconds.
    pub(crate) fn of_times(times: impl IntoIterator<Item = Duration>) -> Self {
        Self::new(times.into_iter().map(|time| time.as_secs_f64()))
    }

    /// Those of some values.
    pub(crate) fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value in the middle; 0 where there is none.
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(0.0)
    }

    /// `12.3 ms`: the median alone.
    pub(crate) fn middle(&self) -> String {
        let median = self.median();
        if median < 1.0 {
            format!("{} ms", digits(median * 1e3))
        } else {
            format!("{} s", digits(median))
        }
    }

    /// `12.3 ms (11.9–14.0)`: the median, the least and the greatest.
    pub(crate) fn seconds(&self) -> String {
        let median = self.median();
        let scale = if median < 1.0 { 1e3 } else { 1.0 };
        let bound = |at: Option<&f64>| digits(at.copied().unwrap_or(0.0) * scale);
        let (least, greatest) = (bound(self.0.first()), bound(self.0.last()));
        let middle = self.middle();
        match self.0.len() {
            0 => "–".to_owned(),
            1 => format!("{middle} (one run)"),
            _ => format!("{middle} ({least}–{greatest})"),
        }
    }
}

/// Three digits of a value.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// How many times as much the peer needs.
pub(crate) fn ratio(own: &Figures, peer: &Figures) -> String {
    format!("{} ×", digits(peer.median() / own.median()))
}

/// A Markdown table.
pub(crate) struct Table {
    columns: usize,
    text: String,
}

impl Table {
    /// A table with a title above it and these heads.
    pub(crate) fn new(title: &str, heads: &[&str]) -> Self {
        let mut text = format!("\n### {title}\n\n| {} |\n|", heads.join(" | "));
        text.push_str(&"-|".repeat(heads.len()));
        text.push('\n');
        Self { columns: heads.len(), text }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: &[String]) {
        debug_assert_eq!(cells.len(), self.columns, "a cell for each head");
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        print!("{}", self.text);
    }
}
