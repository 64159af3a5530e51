//! Reading Debian's control format: stanzas of `Field: value` with indented continuation lines.
//!
//! The syntax is that of Debian Policy, section 5.1
//! (<https://www.debian.org/doc/debian-policy/ch-controlfields.html>), without comments, which
//! occur only in source packages.

/// One stanza: its fields in the order in which they stand. A value keeps its line breaks.
#[derive(Debug, Default)]
pub struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

/// A line that belongs to no field.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is neither `field: value` nor the continuation of one")]
pub struct ControlError {
    /// Counted from 1.
    pub line: usize,
}

impl<'a> Stanza<'a> {
    /// The value of a field, without the space around it. Names are compared without case.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    /// All fields, as they stand.
    pub fn fields(&self) -> &[(&'a str, &'a str)] {
        &self.fields
    }
}

/// Splits `text` into its stanzas.
pub fn stanzas(text: &str) -> Stanzas<'_> {
    Stanzas { text, position: 0, line: 0 }
}

/// Iterates over the stanzas of a text. Ends after the first error.
pub struct Stanzas<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl<'a> Stanzas<'a> {
    /// The next line, with its start and without its line break.
    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        let rest = self.text.get(self.position..).filter(|rest| !rest.is_empty())?;
        let start = self.position;
        let length = rest.find('\n').unwrap_or(rest.len());
        self.position += (length + 1).min(rest.len());
        self.line += 1;
        Some((start, &rest[..length]))
    }
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Result<Stanza<'a>, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.text;
        let mut stanza = Stanza::default();
        let mut value_start = 0;
        while let Some((start, line)) = self.next_line() {
            if line.trim_end().is_empty() {
                if stanza.fields.is_empty() {
                    continue;
                }
                break;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = stanza.fields.last_mut() {
                    *value = &text[value_start..start + line.len()];
                    continue;
                }
            } else if let Some((name, value)) = line.split_once(':') {
                value_start = start + line.len() - value.len();
                stanza.fields.push((name, value));
                continue;
            }
            self.position = text.len();
            return Some(Err(ControlError { line: self.line }));
        }
        (!stanza.fields.is_empty()).then_some(Ok(stanza))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_stanzas_and_joins_continuations() {
        let text = "\nPackage: a\nDepends: b,\n c\n\n\nPackage: d\nX:\n e\n .\n f\n";
        let all: Vec<Stanza> = stanzas(text).collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("depends"), Some("b,\n c"));
        assert_eq!(all[1].get("Package"), Some("d"));
        assert_eq!(all[1].get("X"), Some("e\n .\n f"));
        assert_eq!(all[1].get("Y"), None);
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        let error = stanzas("Package: a\nno colon\n").next().unwrap().unwrap_err();
        assert_eq!(error.line, 2);
        let error = stanzas(" continues nothing").next().unwrap().unwrap_err();
        assert_eq!(error.line, 1);
    }
}
