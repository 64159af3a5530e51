//! From words to texts: variables, output of commands, paths that fit a pattern.

use super::pattern::{self, Piece};
use super::syntax::{Change, Part, Word};
use super::{Follower, Value, parser};

/// A piece of an expanded word.
struct Expanded {
    text: String,
    quoted: bool,
}

impl Follower<'_> {
    /// A word as one text, as in an assignment.
    pub(super) fn text(&mut self, word: &Word) -> Value {
        let parts = self.expand(word)?;
        Some(parts.into_iter().map(|part| part.text).collect())
    }

    /// A word as a pattern.
    pub(super) fn pattern(&mut self, word: &Word) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        for Expanded { text, quoted } in self.expand(word)? {
            if quoted {
                pieces.extend(text.chars().map(Piece::Letter));
            } else {
                pattern::read(&text, &mut pieces);
            }
        }
        Some(pieces)
    }

    /// Words as the arguments of a command: split at blanks, paths put in for patterns. One that
    /// is not known stays one argument.
    pub(super) fn fields(&mut self, words: &[Word]) -> Vec<Value> {
        let mut fields = Vec::new();
        for word in words {
            if let [Part::Variable { name, change: None, quoted }] = all_but_empty(word)[..]
                && (name == "@" || (name == "*" && !quoted))
            {
                fields.extend(self.arguments.iter().cloned());
                continue;
            }
            match self.expand(word) {
                None => fields.push(None),
                Some(parts) => self.split(parts, &mut fields),
            }
        }
        fields
    }

    fn split(&self, parts: Vec<Expanded>, fields: &mut Vec<Value>) {
        let mut all: Vec<Vec<Expanded>> = Vec::new();
        let mut open = false;
        for Expanded { text, quoted } in parts {
            if quoted {
                if !std::mem::replace(&mut open, true) {
                    all.push(Vec::new());
                }
                if let Some(last) = all.last_mut() {
                    last.push(Expanded { text, quoted });
                }
                continue;
            }
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let blank = |c: char| matches!(c, ' ' | '\t' | '\n');
                let length = rest.find(blank).unwrap_or(rest.len());
                if length == 0 {
                    open = false;
                    rest = rest.trim_start_matches(blank);
                    continue;
                }
                if !std::mem::replace(&mut open, true) {
                    all.push(Vec::new());
                }
                if let Some(last) = all.last_mut() {
                    last.push(Expanded { text: rest[..length].to_owned(), quoted: false });
                }
                rest = &rest[length..];
            }
        }
        for parts in all {
            let mut pieces = Vec::new();
            for Expanded { text, quoted } in &parts {
                if *quoted {
                    pieces.extend(text.chars().map(Piece::Letter));
                } else {
                    pattern::read(text, &mut pieces);
                }
            }
            let plain = pieces.iter().all(|piece| matches!(piece, Piece::Letter(_)));
            let paths = if plain { Vec::new() } else { pattern::paths(self.scene.tree, &pieces) };
            if paths.is_empty() {
                fields.push(Some(parts.into_iter().map(|part| part.text).collect()));
            } else {
                fields.extend(paths.into_iter().map(Some));
            }
        }
    }

    /// The parts of a word with everything put in; none if something is not known.
    fn expand(&mut self, word: &Word) -> Option<Vec<Expanded>> {
        let mut parts = Vec::new();
        for part in word {
            match part {
                Part::Text(text) => parts.push(Expanded { text: text.clone(), quoted: false }),
                Part::Quoted(text) => parts.push(Expanded { text: text.clone(), quoted: true }),
                Part::Unclear => return None,
                Part::Variable { name, change, quoted } => {
                    let text = match change {
                        None => self.variable(name)?,
                        Some((change, word)) => self.changed(name, *change, word)?,
                    };
                    parts.push(Expanded { text, quoted: *quoted });
                }
                Part::Output { script, quoted } => {
                    let text = self.output_of(script)?;
                    parts.push(Expanded { text, quoted: *quoted });
                }
            }
        }
        Some(parts)
    }

    fn output_of(&mut self, script: &str) -> Value {
        let Ok(command) = parser::parse(script) else {
            self.miss("a form of the shell that is not understood");
            return None;
        };
        // A subshell keeps its variables to itself.
        let variables = self.variables.clone();
        let (output, _) = self.captured(|this| this.run(&command));
        self.variables = variables;
        output.map(|text| text.trim_end_matches('\n').to_owned())
    }

    /// The value of a variable; one that is not set is empty.
    pub(super) fn variable(&mut self, name: &str) -> Value {
        match name {
            "@" | "*" => {
                let all: Option<Vec<String>> = self.arguments.iter().cloned().collect();
                all.map(|all| all.join(" "))
            }
            "#" => Some(self.arguments.len().to_string()),
            "?" => match self.last {
                super::Status::Yes => Some("0".to_owned()),
                super::Status::No => Some("1".to_owned()),
                super::Status::Unknown => None,
            },
            "$" | "!" => None,
            "-" => Some(String::new()),
            "0" => Some(format!("/var/lib/dpkg/info/{}.{}", self.script.package, self.script.name)),
            _ => match name.parse::<usize>() {
                Ok(number) => {
                    self.arguments.get(number - 1).cloned().unwrap_or(Some(String::new()))
                }
                Err(_) => self.variables.get(name).cloned().unwrap_or(Some(String::new())),
            },
        }
    }

    fn changed(&mut self, name: &str, change: Change, word: &Word) -> Value {
        let value = self.variable(name)?;
        match change {
            Change::Length => Some(value.chars().count().to_string()),
            Change::Default | Change::Required if value.is_empty() => self.text(word),
            Change::Assign if value.is_empty() => {
                let text = self.text(word);
                self.variables.insert(name.to_owned(), text.clone());
                text
            }
            Change::Instead if value.is_empty() => Some(value),
            Change::Instead => self.text(word),
            Change::Default | Change::Required | Change::Assign => Some(value),
            Change::ShortEnd | Change::LongEnd | Change::ShortStart | Change::LongStart => {
                let pattern = self.pattern(word)?;
                Some(trimmed(&value, change, &pattern))
            }
        }
    }
}

/// The parts of a word that have letters or stand for some.
fn all_but_empty(word: &Word) -> Vec<&Part> {
    let has_letters = |part: &&Part| !matches!(part, Part::Quoted(text) if text.is_empty());
    word.iter().filter(has_letters).collect()
}

fn trimmed(value: &str, change: Change, pattern: &[Piece]) -> String {
    let mut ends: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
    ends.push(value.len());
    let at_end = matches!(change, Change::ShortEnd | Change::LongEnd);
    // From the shortest piece to the longest.
    if at_end {
        ends.reverse();
    }
    if matches!(change, Change::LongEnd | Change::LongStart) {
        ends.reverse();
    }
    for at in ends {
        let (start, end) = value.split_at(at);
        let (piece, rest) = if at_end { (end, start) } else { (start, end) };
        if pattern::matches(pattern, piece) {
            return rest.to_owned();
        }
    }
    value.to_owned()
}
