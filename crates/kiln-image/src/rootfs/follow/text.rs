//! Commands that work on text.

use regex::Regex;

use super::{Follower, Status, Value};
use crate::tree::Kind;

impl Follower<'_> {
    pub(super) fn text_command(&mut self, name: &str, words: &[Value]) -> Status {
        let words: Option<Vec<String>> = words.iter().cloned().collect();
        let Some(words) = words else {
            // What it would write is not known; if that goes to a file, it is said there.
            self.print_unknown();
            return Status::Unknown;
        };
        match name {
            "echo" => self.echo(&words),
            "printf" => self.printf(&words),
            "grep" | "egrep" | "fgrep" => return self.grep(name, &words),
            "sed" => return self.sed(&words),
            "basename" | "dirname" => return self.part_of_path(name, &words),
            "readlink" => return self.read_link(&words),
            "cat" => match self.texts(&words) {
                Some(text) => self.print(&text),
                None => self.print_unknown(),
            },
            "sort" | "uniq" | "tee" if words.iter().all(|word| word == "-u") => {
                let mut lines: Vec<String> =
                    self.texts(&[]).unwrap_or_default().lines().map(str::to_owned).collect();
                if name == "sort" {
                    lines.sort();
                }
                if name == "uniq" || words.contains(&"-u".to_owned()) {
                    lines.dedup();
                }
                self.print_lines(lines.iter().map(String::as_str));
            }
            "xargs" => return self.apply_to_input(&words),
            "cut" => return self.cut(&words),
            "tr" => return self.translate(&words),
            "stat" => return self.state_of(&words),
            "uname" if words == ["-s"] || words.is_empty() => self.print("Linux\n"),
            "tee" => {
                self.miss("tee");
                return Status::Unknown;
            }
            _ => {
                self.print_unknown();
                return Status::Unknown;
            }
        }
        Status::Yes
    }

    fn echo(&mut self, words: &[String]) {
        let no_end = words.first().is_some_and(|word| word == "-n");
        let text = words[usize::from(no_end)..].join(" ");
        self.print(&text);
        if !no_end {
            self.print("\n");
        }
    }

    /// `printf` with `%s`, `%d` and the usual escapes.
    fn printf(&mut self, words: &[String]) {
        let Some((format, values)) = words.split_first() else { return };
        let format = format.replace("\\n", "\n").replace("\\t", "\t");
        let mut values = values.iter();
        loop {
            let before = values.len();
            let mut text = String::new();
            let mut letters = format.chars();
            while let Some(letter) = letters.next() {
                match (letter, letter == '%') {
                    (_, true) => match letters.next() {
                        Some('s' | 'd' | 'i' | 'b') => {
                            text.push_str(values.next().map_or("", String::as_str));
                        }
                        Some('%') => text.push('%'),
                        _ => return self.print_unknown(),
                    },
                    (letter, _) => text.push(letter),
                }
            }
            self.print(&text);
            if values.len() == 0 || values.len() == before {
                return;
            }
        }
    }

    /// The content of some files, or of the input.
    fn texts(&mut self, paths: &[String]) -> Value {
        let paths: Vec<&String> = paths.iter().filter(|path| !path.starts_with('-')).collect();
        if paths.is_empty() {
            return self.input.clone().unwrap_or(Some(String::new()));
        }
        let read = |path: &&String| match path.as_str() {
            "/dev/null" => Some(String::new()),
            path => match self.scene.tree.resolve(path) {
                Ok(_) => self.read(path),
                Err(_) => Some(String::new()),
            },
        };
        paths.iter().map(read).collect()
    }

    fn grep(&mut self, name: &str, words: &[String]) -> Status {
        let (mut options, mut rest) = (String::new(), Vec::new());
        for word in words {
            match word.strip_prefix('-') {
                Some("-quiet" | "-silent") => options.push('q'),
                Some(option) if rest.is_empty() && !option.starts_with('-') => options += option,
                Some(_) if rest.is_empty() => {}
                _ => rest.push(word.clone()),
            }
        }
        let Some((pattern, paths)) = rest.split_first() else { return Status::Unknown };
        let Some(text) = self.texts(paths) else {
            self.print_unknown();
            return Status::Unknown;
        };
        let mut pattern = match name {
            "fgrep" => regex::escape(pattern),
            _ if options.contains('F') => regex::escape(pattern),
            "egrep" => pattern.clone(),
            _ if options.contains(['E', 'P']) => pattern.clone(),
            _ => extended(pattern),
        };
        if options.contains('w') {
            pattern = format!("\\b(?:{pattern})\\b");
        }
        if options.contains('x') {
            pattern = format!("^(?:{pattern})$");
        }
        if options.contains('i') {
            pattern = format!("(?i){pattern}");
        }
        let Ok(regex) = Regex::new(&pattern) else { return Status::Unknown };
        let wanted = !options.contains('v');
        let found: Vec<&str> = text.lines().filter(|l| regex.is_match(l) == wanted).collect();
        let quiet = options.contains('q');
        if options.contains('c') {
            self.print(&format!("{}\n", found.len()));
        } else if options.contains('o') {
            self.print_unknown();
        } else if !quiet {
            self.print_lines(found.iter().copied());
        }
        Status::of(!found.is_empty())
    }

    /// `sed` with substitutions, deletions and prints of lines that fit.
    fn sed(&mut self, words: &[String]) -> Status {
        let (mut edits, mut paths) = (Vec::new(), Vec::new());
        let (mut quiet, mut in_place, mut extended) = (false, false, false);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-n" | "--quiet" | "--silent" => quiet = true,
                "-r" | "-E" => extended = true,
                "-i" | "--in-place" => in_place = true,
                "-e" => edits.extend(words.next().cloned()),
                _ if word.starts_with("-e") => edits.push(word[2..].to_owned()),
                _ if word.starts_with('-') => edits.push("?".to_owned()),
                _ if edits.is_empty() => edits.push(word.clone()),
                _ => paths.push(word.clone()),
            }
        }
        let edits: Option<Vec<Edit>> =
            edits.iter().map(|edit| Edit::read(edit, extended)).collect();
        let changed = edits.zip(self.texts(&paths)).map(|(edits, text)| {
            text.lines().filter_map(|line| edited(line, &edits, quiet)).collect::<String>()
        });
        if in_place {
            for path in &paths {
                if self.scene.tree.resolve(path).is_ok() {
                    let output = if paths.len() == 1 { changed.clone() } else { None };
                    self.write(Some(path.clone()), output, false);
                }
            }
            return Status::Yes;
        }
        self.tell(changed)
    }

    /// `cut -d C -f N`
    fn cut(&mut self, words: &[String]) -> Status {
        let value = |letter: char| {
            let at = words.iter().position(|word| word.starts_with(&format!("-{letter}")))?;
            let rest = &words[at][2..];
            if rest.is_empty() { words.get(at + 1).cloned() } else { Some(rest.to_owned()) }
        };
        let mark = value('d').unwrap_or_else(|| "\t".to_owned());
        let field = value('f').and_then(|field| field.parse::<usize>().ok()).filter(|f| *f > 0);
        let known = field.zip(self.input.clone().unwrap_or(Some(String::new())));
        let Some((field, text)) = known else {
            self.print_unknown();
            return Status::Unknown;
        };
        for line in text.lines() {
            // A line without the mark is written whole.
            let part = if line.contains(&mark) {
                line.split(mark.as_str()).nth(field - 1)
            } else {
                Some(line)
            };
            self.print_lines([part.unwrap_or_default()]);
        }
        Status::Yes
    }

    /// `tr` of one letter to another, of letters to the other case, and without some.
    fn translate(&mut self, words: &[String]) -> Status {
        let text = self.input.clone().unwrap_or(Some(String::new()));
        let letters = |text: &str| text.replace("\\n", "\n").replace("\\t", "\t");
        let words: Vec<String> = words.iter().map(|word| letters(word)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let plain = |set: &str| !set.contains(['-', '[', '\\']);
        let changed = text.and_then(|text| match words[..] {
            ["A-Z" | "[:upper:]" | "[A-Z]", "a-z" | "[:lower:]" | "[a-z]"] => {
                Some(text.to_ascii_lowercase())
            }
            ["a-z" | "[:lower:]", "A-Z" | "[:upper:]"] => Some(text.to_ascii_uppercase()),
            ["-d", set] if plain(set) => Some(text.replace(|c| set.contains(c), "")),
            [from, to] if plain(from) && plain(to) && from.len() == 1 && to.len() == 1 => {
                Some(text.replace(from, to))
            }
            _ => None,
        });
        self.tell(changed)
    }

    /// `stat -c FORMAT PATH` with the mode and the owners as numbers.
    fn state_of(&mut self, words: &[String]) -> Status {
        let format = words.iter().position(|word| word == "-c").and_then(|at| words.get(at + 1));
        let path = words.last().filter(|path| Some(*path) != format);
        let inode = path.and_then(|path| self.scene.tree.resolve(path).ok());
        let Some((format, metadata)) = format.zip(inode.map(crate::tree::Inode::metadata)) else {
            self.print_unknown();
            return Status::Unknown;
        };
        let text = format
            .replace("%a", &format!("{:o}", metadata.mode))
            .replace("%u", &metadata.uid.to_string())
            .replace("%g", &metadata.gid.to_string());
        if text.contains('%') {
            self.print_unknown();
            return Status::Unknown;
        }
        self.print(&format!("{text}\n"));
        Status::Yes
    }

    fn part_of_path(&mut self, name: &str, words: &[String]) -> Status {
        let Some(path) = words.iter().find(|word| !word.starts_with('-')) else {
            return Status::No;
        };
        let trimmed = path.trim_end_matches('/');
        let (directory, base) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
        let directory = if directory.is_empty() { "/" } else { directory };
        let text = if name == "dirname" {
            directory
        } else {
            let suffix = words.last().filter(|_| words.len() > 1);
            suffix.and_then(|suffix| base.strip_suffix(suffix.as_str())).unwrap_or(base)
        };
        self.print(&format!("{text}\n"));
        Status::Yes
    }

    fn read_link(&mut self, words: &[String]) -> Status {
        let whole = words.iter().any(|word| matches!(word.as_str(), "-f" | "-e" | "-m"));
        let path = words.iter().find(|word| !word.starts_with('-'));
        let inode = path.and_then(|path| self.scene.tree.get(path));
        let target = match inode.map(crate::tree::Inode::kind) {
            Some(Kind::Symlink(target)) => String::from_utf8_lossy(target).into_owned(),
            Some(_) if whole => path.cloned().unwrap_or_default(),
            _ => return Status::No,
        };
        if whole && !target.starts_with('/') {
            self.print_unknown();
            return Status::Unknown;
        }
        self.print(&format!("{target}\n"));
        Status::Yes
    }

    /// `xargs`: a command with the words of the input behind it.
    fn apply_to_input(&mut self, words: &[String]) -> Status {
        let mut words = words.iter().skip_while(|word| word.starts_with('-') || *word == "0");
        let Some(name) = words.next() else { return Status::Yes };
        let mut all: Vec<Value> = words.cloned().map(Some).collect();
        match self.input.clone().unwrap_or(Some(String::new())) {
            None => all.push(None),
            Some(input) => {
                let blank = |c: char| c.is_whitespace() || c == '\0';
                let more = input.split(blank).filter(|word| !word.is_empty());
                let before = all.len();
                all.extend(more.map(|word| Some(word.to_owned())));
                if all.len() == before {
                    return Status::Yes;
                }
            }
        }
        self.command(name, &all)
    }
}

/// One edit of `sed`.
enum Edit {
    Substitute { regex: Regex, with: String, all: bool },
    Delete(Regex),
    Keep(Regex),
    Print(Regex),
}

impl Edit {
    /// `s/a/b/[g]`, `/a/d`, `/a/p`.
    fn read(text: &str, is_extended: bool) -> Option<Self> {
        let regex = |pattern: &str| {
            let pattern = if is_extended { pattern.to_owned() } else { extended(pattern) };
            Regex::new(&pattern).ok()
        };
        let text = text.trim();
        if let Some(rest) = text.strip_prefix('s') {
            let mark = rest.chars().next()?;
            let parts = split_at_marks(&rest[mark.len_utf8()..], mark);
            let [pattern, with, flags] = &parts[..] else { return None };
            if !flags.chars().all(|c| c == 'g') {
                return None;
            }
            let with = with.replace('$', "$$").replace("\\&", "\u{1}").replace('&', "${0}");
            let with = with.replace('\u{1}', "&");
            let with = (1..10).fold(with, |with, number| {
                with.replace(&format!("\\{number}"), &format!("${{{number}}}"))
            });
            return Some(Self::Substitute {
                regex: regex(pattern)?,
                with,
                all: flags.contains('g'),
            });
        }
        let rest = text.strip_prefix('/')?;
        let parts = split_at_marks(rest, '/');
        match (&parts[..], parts.last().map(String::as_str)) {
            ([pattern, _], Some("d")) => Some(Self::Delete(regex(pattern)?)),
            ([pattern, _], Some("p")) => Some(Self::Print(regex(pattern)?)),
            ([pattern, _], Some("!d")) => Some(Self::Keep(regex(pattern)?)),
            _ => None,
        }
    }
}

/// Splits at a mark that is not escaped.
fn split_at_marks(text: &str, mark: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let last = parts.len() - 1;
        match letter {
            '\\' => match letters.next() {
                Some(next) if next == mark => parts[last].push(mark),
                Some(next) => parts[last].extend(['\\', next]),
                None => parts[last].push('\\'),
            },
            _ if letter == mark => parts.push(String::new()),
            _ => parts[last].push(letter),
        }
    }
    parts
}

/// What becomes of a line, with its end.
fn edited(line: &str, edits: &[Edit], quiet: bool) -> Option<String> {
    let mut line = line.to_owned();
    let mut printed = String::new();
    for edit in edits {
        match edit {
            Edit::Substitute { regex, with, all } => {
                let count = usize::from(!all);
                line = regex.replacen(&line, count, with.as_str()).into_owned();
            }
            Edit::Delete(regex) if regex.is_match(&line) => return None,
            Edit::Keep(regex) if !regex.is_match(&line) => return None,
            Edit::Print(regex) if regex.is_match(&line) => {
                printed.push_str(&line);
                printed.push('\n');
            }
            Edit::Delete(_) | Edit::Keep(_) | Edit::Print(_) => {}
        }
    }
    if !quiet {
        printed.push_str(&line);
        printed.push('\n');
    }
    Some(printed)
}

/// A basic regular expression, ready to be used.
pub(super) fn basic_regex(pattern: &str) -> Option<Regex> {
    Regex::new(&extended(pattern)).ok()
}

/// A basic regular expression as an extended one: what needs a backslash in one must have none in
/// the other (POSIX.1-2017, Base Definitions, chapter 9).
fn extended(pattern: &str) -> String {
    let mut result = String::new();
    let mut letters = pattern.chars().peekable();
    let mut start = true;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(c @ ('(' | ')' | '{' | '}' | '|' | '+' | '?')) => result.push(c),
                Some(c) => result.extend(['\\', c]),
                None => result.push_str("\\\\"),
            },
            '(' | ')' | '{' | '}' | '|' | '+' | '?' => result.extend(['\\', letter]),
            '*' if start => result.push_str("\\*"),
            '[' => {
                // A class stands as it is, up to its bracket, which may come first in it.
                result.push('[');
                if letters.peek() == Some(&'^') {
                    result.extend(letters.next());
                }
                if letters.peek() == Some(&']') {
                    letters.next();
                    result.push_str("\\]");
                }
                for inside in letters.by_ref() {
                    if inside == '[' {
                        result.push('\\');
                    }
                    result.push(inside);
                    if inside == ']' {
                        break;
                    }
                }
            }
            _ => result.push(letter),
        }
        start = start && letter == '^';
    }
    result
}
