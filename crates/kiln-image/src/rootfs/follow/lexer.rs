//! From the text of a script to words and operators.

use std::collections::VecDeque;
use std::rc::Rc;

use super::syntax::{Change, Part, Word};

/// The longest operators first.
const OPERATORS: [&str; 17] = [
    "<<-", "&&", "||", ";;", "<<", ">>", "<&", ">&", ">|", "<>", "&", ";", "|", "(", ")", "<", ">",
];

#[derive(Debug, Clone)]
pub(super) enum Token {
    Word(Word),
    Operator(&'static str),
    /// An operator of redirection, with the descriptor before it.
    Redirect(Option<u32>, &'static str),
    /// The text of a here-document, in the place of its delimiter.
    Here(Word),
    Newline,
}

/// A text that is no script, or one beyond what is understood.
#[derive(Debug)]
pub(super) struct Unreadable;

/// Splits a script into tokens.
pub(super) fn tokens(script: &str) -> Result<VecDeque<Token>, Unreadable> {
    let mut lexer = Lexer { rest: script.chars().collect(), tokens: VecDeque::new(), here: vec![] };
    lexer.run()?;
    Ok(lexer.tokens)
}

/// The parts of a text that stands in double quotes or a here-document.
fn quoted_parts(text: &str) -> Result<Word, Unreadable> {
    let mut lexer = Lexer { rest: text.chars().collect(), tokens: VecDeque::new(), here: vec![] };
    let mut word = Word::new();
    lexer.double_quoted(&mut word, None)?;
    Ok(word)
}

/// A here-document that the next line begins.
struct Here {
    delimiter: String,
    plain: bool,
    strip_tabs: bool,
    /// Its place among the tokens.
    token: usize,
}

struct Lexer {
    rest: VecDeque<char>,
    tokens: VecDeque<Token>,
    here: Vec<Here>,
}

impl Lexer {
    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(at, c)| self.rest.get(at) == Some(&c))
    }

    fn skip(&mut self, count: usize) {
        self.rest.drain(..count.min(self.rest.len()));
    }

    fn run(&mut self) -> Result<(), Unreadable> {
        while let Some(&c) = self.rest.front() {
            match c {
                ' ' | '\t' | '\r' => self.skip(1),
                '\\' if self.starts_with("\\\n") => self.skip(2),
                '#' => {
                    while self.rest.front().is_some_and(|c| *c != '\n') {
                        self.skip(1);
                    }
                }
                '\n' => {
                    self.skip(1);
                    self.tokens.push_back(Token::Newline);
                    self.read_here_documents()?;
                }
                _ => self.token()?,
            }
        }
        if self.here.is_empty() { Ok(()) } else { Err(Unreadable) }
    }

    fn token(&mut self) -> Result<(), Unreadable> {
        let digits = self.rest.iter().take_while(|c| c.is_ascii_digit()).count();
        let redirected = matches!(self.rest.get(digits), Some('<' | '>'));
        let descriptor = (digits > 0 && digits < 6 && redirected).then(|| {
            let number: String = self.rest.drain(..digits).collect();
            number.parse().unwrap_or(0)
        });
        let found = OPERATORS.iter().find(|operator| self.starts_with(operator));
        let Some(operator) = found.copied() else {
            let word = self.word()?;
            self.tokens.push_back(Token::Word(word));
            return Ok(());
        };
        self.skip(operator.len());
        if !operator.contains(['<', '>']) {
            self.tokens.push_back(Token::Operator(operator));
            return Ok(());
        }
        self.tokens.push_back(Token::Redirect(descriptor, operator));
        if operator.starts_with("<<") {
            while matches!(self.rest.front(), Some(' ' | '\t')) {
                self.skip(1);
            }
            let delimiter = self.word()?;
            let plain = delimiter.iter().any(|part| matches!(part, Part::Quoted(_)));
            let text = |part: &Part| match part {
                Part::Text(text) | Part::Quoted(text) => text.clone(),
                _ => String::new(),
            };
            let delimiter = delimiter.iter().map(text).collect();
            let (strip_tabs, token) = (operator == "<<-", self.tokens.len());
            self.here.push(Here { delimiter, plain, strip_tabs, token });
            self.tokens.push_back(Token::Here(Word::new()));
        }
        Ok(())
    }

    fn read_here_documents(&mut self) -> Result<(), Unreadable> {
        for here in std::mem::take(&mut self.here) {
            let mut text = String::new();
            loop {
                if self.rest.is_empty() {
                    return Err(Unreadable);
                }
                let length = self.rest.iter().position(|c| *c == '\n').unwrap_or(self.rest.len());
                let line: String = self.rest.drain(..length).collect();
                self.skip(1);
                let line = if here.strip_tabs { line.trim_start_matches('\t') } else { &line };
                if line == here.delimiter {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let word = if here.plain { vec![Part::Quoted(text)] } else { quoted_parts(&text)? };
            self.tokens[here.token] = Token::Here(word);
        }
        Ok(())
    }

    /// A word, up to what can't belong to it.
    fn word(&mut self) -> Result<Word, Unreadable> {
        let mut word = Word::new();
        while let Some(&c) = self.rest.front() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                _ => self.part(&mut word)?,
            }
        }
        if word.is_empty() { Err(Unreadable) } else { Ok(word) }
    }

    /// All that is left, as one word.
    fn whole(&mut self) -> Result<Word, Unreadable> {
        let mut word = Word::new();
        while !self.rest.is_empty() {
            self.part(&mut word)?;
        }
        Ok(word)
    }

    fn part(&mut self, word: &mut Word) -> Result<(), Unreadable> {
        match self.rest.pop_front() {
            Some('\'') => {
                let end = self.rest.iter().position(|c| *c == '\'').ok_or(Unreadable)?;
                let text = self.rest.drain(..end).collect();
                self.skip(1);
                word.push(Part::Quoted(text));
            }
            Some('"') => {
                // Even an empty one makes a word.
                word.push(Part::Quoted(String::new()));
                self.double_quoted(word, Some('"'))?;
            }
            Some('\\') => match self.rest.pop_front() {
                Some('\n') => {}
                Some(c) => word.push(Part::Quoted(c.to_string())),
                None => return Err(Unreadable),
            },
            Some('$') => {
                let part = self.dollar(false)?;
                word.push(part);
            }
            Some('`') => {
                let part = self.backquoted(false)?;
                word.push(part);
            }
            Some(c) => match word.last_mut() {
                Some(Part::Text(text)) => text.push(c),
                _ => word.push(Part::Text(c.to_string())),
            },
            None => {}
        }
        Ok(())
    }

    fn double_quoted(&mut self, word: &mut Word, end: Option<char>) -> Result<(), Unreadable> {
        let mut text = String::new();
        loop {
            let Some(c) = self.rest.pop_front() else {
                word.push(Part::Quoted(text));
                return if end.is_none() { Ok(()) } else { Err(Unreadable) };
            };
            match c {
                _ if Some(c) == end => {
                    word.push(Part::Quoted(text));
                    return Ok(());
                }
                '\\' => match self.rest.pop_front() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '\\' | '"')) => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => text.push('\\'),
                },
                '$' | '`' => {
                    word.push(Part::Quoted(std::mem::take(&mut text)));
                    let part = if c == '$' { self.dollar(true) } else { self.backquoted(true) };
                    word.push(part?);
                }
                c => text.push(c),
            }
        }
    }

    fn backquoted(&mut self, quoted: bool) -> Result<Part, Unreadable> {
        let mut script = String::new();
        loop {
            match self.rest.pop_front().ok_or(Unreadable)? {
                '`' => return Ok(Part::Output { script: script.into(), quoted }),
                '\\' => match self.rest.pop_front().ok_or(Unreadable)? {
                    c @ ('$' | '`' | '\\') => script.push(c),
                    c => script.extend(['\\', c]),
                },
                c => script.push(c),
            }
        }
    }

    /// What follows a `$`.
    fn dollar(&mut self, quoted: bool) -> Result<Part, Unreadable> {
        let variable = |name: String| Part::Variable { name, change: None, quoted };
        match self.rest.front().copied() {
            Some('(') => {
                self.skip(1);
                let script: Rc<str> = self.nested('(', ')')?.into();
                let arithmetic = script.starts_with('(') && script.ends_with(')');
                Ok(if arithmetic { Part::Unclear } else { Part::Output { script, quoted } })
            }
            Some('{') => {
                self.skip(1);
                let inside = self.nested('{', '}')?;
                braced(&inside, quoted)
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let fits = |c: &&char| c.is_ascii_alphanumeric() || **c == '_';
                let length = self.rest.iter().take_while(fits).count();
                Ok(variable(self.rest.drain(..length).collect()))
            }
            Some(c) if c.is_ascii_digit() || "@*#?$!-".contains(c) => {
                self.skip(1);
                Ok(variable(c.to_string()))
            }
            _ => Ok(Part::Quoted("$".to_owned())),
        }
    }

    /// The text up to the bracket that closes one that was read, with quotes in mind.
    fn nested(&mut self, open: char, close: char) -> Result<String, Unreadable> {
        let (mut text, mut depth, mut quote) = (String::new(), 1, None);
        loop {
            let c = self.rest.pop_front().ok_or(Unreadable)?;
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(c),
                (Some(q), _) if q == c => quote = None,
                (Some('"') | None, '\\') => {
                    text.push(c);
                    text.push(self.rest.pop_front().ok_or(Unreadable)?);
                    continue;
                }
                (None, _) if c == open => depth += 1,
                (None, _) if c == close => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(text);
                    }
                }
                _ => {}
            }
            text.push(c);
        }
    }
}

/// The signs of changes to a variable's value, the longer ones first.
const CHANGES: [(&str, Change); 12] = [
    (":-", Change::Default),
    (":=", Change::Assign),
    (":+", Change::Instead),
    (":?", Change::Required),
    ("-", Change::Default),
    ("=", Change::Assign),
    ("+", Change::Instead),
    ("?", Change::Required),
    ("%%", Change::LongEnd),
    ("%", Change::ShortEnd),
    ("##", Change::LongStart),
    ("#", Change::ShortStart),
];

/// What stands between `${` and `}`.
fn braced(inside: &str, quoted: bool) -> Result<Part, Unreadable> {
    let name_length = |text: &str| {
        let letters = text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count();
        if letters == 0 { usize::from(text.starts_with(['@', '*', '#', '?'])) } else { letters }
    };
    if let Some(name) = inside.strip_prefix('#').filter(|name| !name.is_empty())
        && name_length(name) == name.len()
    {
        let (name, change) = (name.to_owned(), Some((Change::Length, Word::new())));
        return Ok(Part::Variable { name, change, quoted });
    }
    let (name, tail) = inside.split_at(name_length(inside));
    if name.is_empty() {
        return Ok(Part::Unclear);
    }
    let found = CHANGES.iter().find_map(|(sign, change)| Some((tail.strip_prefix(sign)?, change)));
    let change = match found {
        None if tail.is_empty() => None,
        None => return Ok(Part::Unclear),
        Some((argument, change)) => {
            let rest = argument.chars().collect();
            let word = Lexer { rest, tokens: VecDeque::new(), here: vec![] }.whole()?;
            Some((*change, word))
        }
    };
    Ok(Part::Variable { name: name.to_owned(), change, quoted })
}
