//! Values and what differs between two of them.

use serde_json::Value;
use similar::TextDiff;

/// The most characters of a value in a line.
const WIDEST: usize = 72;

/// The most lines of a difference between two texts.
const MOST_LINES: usize = 40;

/// A value in one line, shortened.
pub(crate) fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => return "(none)".to_owned(),
        Value::String(text) if text == "(sensitive)" => return text.clone(),
        value => value.to_string(),
    };
    shorten(&text)
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_owned();
    }
    let keep = WIDEST - 1;
    let (head, tail) = (keep * 2 / 3, keep / 3);
    let count = text.chars().count();
    let head: String = text.chars().take(head).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// Whether the two are texts that are better compared line by line.
pub(crate) fn are_texts(from: &Value, to: &Value) -> bool {
    let is_text = |v: &Value| v.as_str().is_some_and(|t| t.trim_end_matches('\n').contains('\n'));
    match (from, to) {
        (Value::String(_), Value::String(_)) => is_text(from) || is_text(to),
        _ => false,
    }
}

/// The lines that differ between two texts with a line of context, in the unified form.
pub(crate) fn lines(from: &str, to: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(from, to);
    let mut lines: Vec<String> = Vec::new();
    for (index, group) in diff.grouped_ops(1).iter().enumerate() {
        if index > 0 {
            lines.push("…".to_owned());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let text = change.value().trim_end_matches('\n');
            lines.push(shorten_line(&format!("{}{text}", change.tag())));
        }
    }
    if lines.len() > MOST_LINES {
        let more = lines.len() - MOST_LINES;
        lines.truncate(MOST_LINES);
        lines.push(format!("… and {more} more lines"));
    }
    lines
}

fn shorten_line(line: &str) -> String {
    let clean: String = line.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    if clean.chars().count() <= WIDEST + 20 {
        return clean;
    }
    let head: String = clean.chars().take(WIDEST + 19).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_keep_both_ends() {
        let value = Value::from("a".repeat(100) + "z");
        let text = short(&value);
        assert!(text.chars().count() <= WIDEST);
        assert!(text.starts_with("\"aaa") && text.ends_with("az\""), "{text}");
        assert_eq!(short(&Value::Null), "(none)");
    }

    #[test]
    fn texts_are_compared_by_lines() {
        let (from, to) = ("a\nb\nc\nd\ne\n", "a\nb\nC\nd\ne\n");
        assert_eq!(lines(from, to), [" b", "-c", "+C", " d"]);
        assert!(are_texts(&from.into(), &"x".into()));
        assert!(!are_texts(&"one\n".into(), &"x".into()), "one line is a value");
    }
}
