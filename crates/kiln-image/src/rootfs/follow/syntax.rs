//! A shell script as a tree, as far as maintainer scripts need the language
//! (POSIX.1-2017, Shell & Utilities, chapter 2).

use std::rc::Rc;

/// One word before it is expanded.
pub(super) type Word = Vec<Part>;

/// A part of a word.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// Letters as they stand; patterns in them count.
    Text(String),
    /// Letters that were quoted.
    Quoted(String),
    /// A variable, and what becomes of its value.
    Variable { name: String, change: Option<(Change, Word)>, quoted: bool },
    /// What a script writes.
    Output { script: Rc<str>, quoted: bool },
    /// Something that is not understood; its value is not known.
    Unclear,
}

/// What becomes of a variable's value (section 2.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// `-` and `:-`: something else where there is none.
    Default,
    /// `=` and `:=`: the same, and keeps it.
    Assign,
    /// `+` and `:+`: something else where there is one.
    Instead,
    /// `?` and `:?`: an end where there is none.
    Required,
    /// `%`: without the shortest end that fits.
    ShortEnd,
    /// `%%`: without the longest end that fits.
    LongEnd,
    /// `#`: without the shortest start that fits.
    ShortStart,
    /// `##`: without the longest start that fits.
    LongStart,
    /// `${#name}`: how many letters it has.
    Length,
}

/// Where a command reads from or writes to instead.
#[derive(Debug, Clone)]
pub(super) struct Redirect {
    /// The descriptor, where it is named.
    pub(super) descriptor: Option<u32>,
    /// `<`, `>`, `>>`, `>&`, `<<`, ...
    pub(super) operator: String,
    /// The file, descriptor or, for `<<`, the text.
    pub(super) target: Word,
}

/// One command.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Simple { assignments: Vec<(String, Word)>, words: Vec<Word>, redirects: Vec<Redirect> },
    List(Vec<Command>),
    And(Box<Command>, Box<Command>),
    Or(Box<Command>, Box<Command>),
    Not(Box<Command>),
    Pipe(Vec<Command>),
    If { branches: Vec<(Command, Command)>, otherwise: Option<Box<Command>> },
    For { name: String, words: Option<Vec<Word>>, body: Box<Command> },
    While { until: bool, condition: Box<Command>, body: Box<Command> },
    Case { word: Word, arms: Vec<(Vec<Word>, Command)> },
    Function { name: String, body: Rc<Command> },
    Redirected { command: Box<Command>, redirects: Vec<Redirect> },
}

impl Command {
    /// Calls `visit` with the first word of each simple command inside, where it is a plain one.
    pub(super) fn each_name(&self, visit: &mut dyn FnMut(&str)) {
        match self {
            Self::Simple { words, .. } => {
                if let Some([Part::Text(name) | Part::Quoted(name)]) = words.first().map(|w| &w[..])
                {
                    visit(name);
                } else if !words.is_empty() {
                    visit("a command whose name is not known before");
                }
            }
            Self::List(all) | Self::Pipe(all) => all.iter().for_each(|c| c.each_name(visit)),
            Self::And(left, right) | Self::Or(left, right) => {
                left.each_name(visit);
                right.each_name(visit);
            }
            Self::Not(inner) | Self::For { body: inner, .. } => inner.each_name(visit),
            Self::Redirected { command, .. } => command.each_name(visit),
            Self::If { branches, otherwise } => {
                for (condition, body) in branches {
                    condition.each_name(visit);
                    body.each_name(visit);
                }
                if let Some(otherwise) = otherwise {
                    otherwise.each_name(visit);
                }
            }
            Self::While { condition, body, .. } => {
                condition.each_name(visit);
                body.each_name(visit);
            }
            Self::Case { arms, .. } => arms.iter().for_each(|(_, body)| body.each_name(visit)),
            Self::Function { .. } => {}
        }
    }
}
