//! Values and what differs between two of them.

use kiln_model::quantity::{Amount, Bytes, Millis};
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

/// The same of the value at a path such as `server.web.rollout.deadline`: a number of milliseconds,
/// bytes or thousandths of a processor is written as it stands in the configuration.
pub(crate) fn short_at(path: &str, value: &Value) -> String {
    let Some(number) = value.as_u64() else { return short(value) };
    match path.rsplit('.').next().unwrap_or_default() {
        "beyond" | "deadline" | "down_after" | "every" | "grace" | "hold" | "keep" | "latency"
        | "replace_after" | "timeout" | "watch" => Millis(number).to_string(),
        "memory" | "size" => Bytes(number).to_string(),
        "cpu" => Amount(number).to_string(),
        _ => short(value),
    }
}

/// A measured size, to three digits or so.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        unit += 1;
        scale *= 1024;
    }
    let (whole, tenths) = (bytes / scale, bytes % scale * 10 / scale);
    let unit = UNITS[unit];
    if whole >= 100 || scale == 1 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
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

    #[test]
    fn quantities_stand_as_they_are_written() {
        let at = |path: &str, value: u64| short_at(path, &value.into());
        assert_eq!(at("server.web.rollout.deadline", 120_000), "2m");
        assert_eq!(at("server.web.memory", 256 << 20), "256MiB");
        assert_eq!(at("server.web.cpu", 500), "0.5");
        assert_eq!(at("server.web.replicas", 3), "3");
        assert_eq!(short_at("server.web.rollout.deadline", &Value::Null), "(none)");
        let shown = [0, 1023, 1024, 96_092 << 10, 150 << 30, 3 << 40].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "93.8 MiB", "150 GiB", "3.0 TiB"]);
    }
}
