//! Ways to write text inside of other text, character by character.

use std::fmt::Write as _;

/// How the text of a secret is to be written where it is put in.
///
/// Each of these maps characters one by one, so it can be applied to the secret alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Escape {
    /// As the inside of a JSON string (RFC 8259); `<`, `>` and `&` are escaped as well, so that
    /// it can stand in HTML.
    Json,
    /// As a component of a URL (RFC 3986): all but unreserved characters as `%XX`, and a space
    /// as `+`.
    Url,
}

impl Escape {
    /// Escapes one text.
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::Json => json(text),
            Self::Url => url(text),
        }
    }
}

fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out
}

fn url(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            byte => {
                for nibble in [byte >> 4, byte & 0xf] {
                    escaped.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
                }
                escaped.insert(escaped.len() - 2, '%');
            }
        }
    }
    escaped
}
