//! What is in the table, held against what clients noted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::audit::Row;
use super::writer::{Book, sum};

/// What came of all that was written.
#[derive(Debug)]
pub struct Report {
    /// How many rows were acknowledged.
    pub acknowledged: u64,
    /// What clients were told of errors, each with the client and its row.
    pub told: Vec<String>,
    /// How many acknowledged rows are not there.
    pub lost: u64,
    /// What must never be: rows that were acknowledged and are lost, torn, twice or out of order; a
    /// client that reads less than it was told; two who both took writes; silence.
    pub violations: Vec<String>,
    /// From one acknowledgement of a client to its next: when it ended, and how long it was.
    waits: Vec<(Instant, Duration)>,
}

impl Report {
    pub(super) fn of(books: Vec<Book>, told: Vec<String>, rows: &[Row]) -> Self {
        let mut violations = Vec::new();
        let mut there: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for row in rows {
            if row.sum != sum(row.n) {
                violations.push(format!("row {} of client {} is torn", row.n, row.client));
            }
            there.entry(row.client).or_default().push(row.n);
        }
        violations.extend(two_at_a_time(&books, rows));
        let (mut acknowledged, mut lost, mut waits) = (0, 0, Vec::new());
        for book in books {
            let rows = there.remove(&book.client).unwrap_or_default();
            if !rows.is_sorted_by(|a, b| a < b) {
                let client = book.client;
                violations.push(format!("client {client} finds rows twice or out of order"));
            }
            let missing = book.entries.iter().filter(|entry| rows.binary_search(&entry.n).is_err());
            let missing: Vec<i64> = missing.map(|entry| entry.n).collect();
            if let Some(first) = missing.first() {
                let (client, count) = (book.client, missing.len());
                violations.push(format!("client {client} lost {count} rows, the first {first}"));
            }
            acknowledged += book.entries.len() as u64;
            lost += missing.len() as u64;
            let mut before = book.begun;
            for entry in &book.entries {
                waits.push((entry.answered, entry.answered.duration_since(before)));
                before = entry.answered;
            }
            violations.extend(book.complaints);
        }
        Self { acknowledged, told, lost, violations, waits }
    }

    /// The longest that a client waited for its next acknowledgement, of waits that ended between two
    /// moments.
    pub fn longest_between(&self, from: Instant, to: Instant) -> Duration {
        let ended = self.waits.iter().filter(|(end, _)| *end >= from && *end <= to);
        ended.map(|(_, wait)| *wait).max().unwrap_or_default()
    }

    /// The longest that a client waited for its next acknowledgement.
    pub fn longest(&self) -> Duration {
        self.waits.iter().map(|(_, wait)| *wait).max().unwrap_or_default()
    }

    /// How long clients waited, as [`spectrum`] shows it.
    pub fn waits(&self) -> String {
        spectrum(self.waits.iter().map(|(_, wait)| *wait))
    }
}

/// Times by percentile, as `HdrHistogram`'s tools print them: each line has a value in milliseconds, which
/// share of all is not above it, and how many those are.
pub fn spectrum(times: impl IntoIterator<Item = Duration>) -> String {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    let mut text = format!("{:>12} {:>14} {:>10}\n", "Value (ms)", "Percentile", "TotalCount");
    let count = times.len();
    let (mut shown, mut above) = (0, 1_usize);
    // Each line halves what is above it.
    while shown < count {
        let upto = (count - count / above.max(1)).max(1).min(count);
        let upto = if above > count { count } else { upto };
        if upto > shown {
            shown = upto;
            let share = ratio(upto, count);
            let value = times[upto - 1].as_secs_f64() * 1e3;
            let _ = writeln!(text, "{value:>12.3} {share:>14.9} {upto:>10}");
        }
        above = above.saturating_mul(2);
    }
    let total: f64 = times.iter().map(Duration::as_secs_f64).sum();
    let mean = if count == 0 { 0.0 } else { total * 1e3 * ratio(1, count) };
    let _ = writeln!(text, "#[Mean = {mean:.3} ms, Total count = {count}]");
    text
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

/// Where two took writes at a time. By the table: the rows of each are in a piece. By the clock: once
/// one has acknowledged a row, none before it acknowledges any that was asked for later.
fn two_at_a_time(books: &[Book], rows: &[Row]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut ranks: BTreeMap<&str, usize> = BTreeMap::new();
    let mut last = "";
    for row in rows.iter().filter(|row| books.iter().any(|book| book.client == row.client)) {
        if row.taken_by == last {
            continue;
        }
        last = &row.taken_by;
        let rank = ranks.len();
        if ranks.insert(last, rank).is_some() {
            violations.push(format!("{last} took writes again after another"));
        }
    }
    // What is of no row that is there is lost, and is said to be.
    let rank = |book: &Book, by: usize| ranks.get(book.takers[by].as_str()).copied();
    let entries = books.iter().flat_map(|book| book.entries.iter().map(move |e| (book, e)));
    let entries: Vec<_> = entries
        .filter_map(|(book, entry)| Some((entry.asked, entry.answered, rank(book, entry.by)?)))
        .collect();
    let mut answers: Vec<(Instant, usize)> =
        entries.iter().map(|(_, answered, rank)| (*answered, *rank)).collect();
    answers.sort_unstable();
    let mut highest = 0;
    for (_, rank) in &mut answers {
        highest = highest.max(*rank);
        *rank = highest;
    }
    let late = entries.iter().filter(|(asked, _, rank)| {
        let before = answers.partition_point(|(answered, _)| answered < asked);
        before > 0 && answers[before - 1].1 > *rank
    });
    let late = late.count();
    if late > 0 {
        violations.push(format!("{late} rows were acknowledged by one that had been succeeded"));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::writer::Entry;
    use super::*;

    fn row(client: i32, n: i64, taken_by: &str) -> Row {
        Row { client, n, sum: sum(n), taken_by: taken_by.to_owned() }
    }

    /// A client whose rows were each asked for and answered at these milliseconds.
    fn book(client: i32, entries: &[(i64, u64, u64, &str)]) -> Book {
        let begun = Instant::now();
        let at = |ms: &u64| begun + Duration::from_millis(*ms);
        let mut takers: Vec<String> = Vec::new();
        let entries = entries.iter().map(|(n, asked, answered, by)| {
            let by = takers.iter().position(|it| it == by).unwrap_or_else(|| {
                takers.push((*by).to_owned());
                takers.len() - 1
            });
            Entry { n: *n, asked: at(asked), answered: at(answered), by }
        });
        let entries = entries.collect();
        Book { client, entries, takers, complaints: Vec::new(), begun }
    }

    fn violations(books: Vec<Book>, rows: &[Row]) -> String {
        Report::of(books, Vec::new(), rows).violations.join("; ")
    }

    #[test]
    fn all_is_well_where_one_follows_the_other() {
        let books = vec![book(0, &[(1, 0, 1, "a"), (3, 4, 9, "b")])];
        // Row 2 was not acknowledged, and is there all the same.
        let rows = [row(0, 1, "a"), row(0, 2, "a"), row(0, 3, "b")];
        let report = Report::of(books, Vec::new(), &rows);
        assert_eq!((report.violations.len(), report.lost, report.acknowledged), (0, 0, 2));
        assert_eq!(report.longest(), Duration::from_millis(8));
    }

    #[test]
    fn what_is_lost_twice_torn_or_out_of_order_is_found() {
        let one = || vec![book(0, &[(1, 0, 1, "a"), (2, 2, 3, "a")])];
        let (first, second) = (row(0, 1, "a"), row(0, 2, "a"));
        let all = |rows: &[Row]| violations(one(), rows);
        assert_eq!(all(&[first.clone(), second.clone()]), "");
        assert_eq!(all(std::slice::from_ref(&first)), "client 0 lost 1 rows, the first 2");
        assert!(all(&[first.clone(), first.clone(), second.clone()]).contains("twice"));
        assert!(all(&[second.clone(), first.clone()]).contains("out of order"));
        let torn = Row { sum: String::new(), ..first };
        assert!(all(&[torn, second]).contains("row 1 of client 0 is torn"));
    }

    #[test]
    fn two_who_take_writes_at_a_time_are_found() {
        let books = || {
            vec![
                book(0, &[(1, 0, 1, "a"), (2, 5, 6, "a")]),
                book(1, &[(1, 2, 3, "b"), (2, 7, 8, "b")]),
            ]
        };
        // In the table one may stand behind the other: the clock tells.
        let rows = [row(0, 1, "a"), row(0, 2, "a"), row(1, 1, "b"), row(1, 2, "b")];
        assert!(violations(books(), &rows).contains("1 rows were acknowledged by one that"));
        let rows = [row(0, 1, "a"), row(1, 1, "b"), row(0, 2, "a"), row(1, 2, "b")];
        assert!(violations(books(), &rows).contains("a took writes again after another"));
    }

    #[test]
    fn a_spectrum_ends_with_the_longest() {
        let text = spectrum((1..=1000).map(Duration::from_millis));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("1.000") && text.contains("500.000    0.500000000        500"));
        assert!(lines[lines.len() - 2].ends_with("1000"), "{text}");
        assert!(text.ends_with("#[Mean = 500.500 ms, Total count = 1000]\n"), "{text}");
        assert_eq!(spectrum([]).lines().count(), 2);
    }
}
