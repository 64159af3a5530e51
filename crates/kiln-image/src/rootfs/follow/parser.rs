//! From words and operators to commands.

use std::collections::VecDeque;
use std::rc::Rc;

use super::lexer::{Token, Unreadable, tokens};
use super::syntax::{Command, Part, Redirect, Word};

/// How deep commands may be nested.
const MAX_DEPTH: usize = 64;

/// Reads a script.
pub(super) fn parse(script: &str) -> Result<Command, Unreadable> {
    let mut parser = Parser { tokens: tokens(script)?, depth: 0 };
    let all = parser.list(&[])?;
    if parser.tokens.is_empty() { Ok(all) } else { Err(Unreadable) }
}

struct Parser {
    tokens: VecDeque<Token>,
    depth: usize,
}

impl Parser {
    /// The next token as a reserved word, if it can be one.
    fn keyword(&self) -> Option<&str> {
        match self.tokens.front() {
            Some(Token::Word(word)) => match &word[..] {
                [Part::Text(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    fn take_keyword(&mut self, wanted: &str) -> bool {
        let found = self.keyword() == Some(wanted);
        if found {
            self.tokens.pop_front();
        }
        found
    }

    fn need_keyword(&mut self, wanted: &str) -> Result<(), Unreadable> {
        if self.take_keyword(wanted) { Ok(()) } else { Err(Unreadable) }
    }

    fn take_operator(&mut self, wanted: &str) -> bool {
        let found = matches!(self.tokens.front(), Some(Token::Operator(o)) if *o == wanted);
        if found {
            self.tokens.pop_front();
        }
        found
    }

    fn skip_newlines(&mut self) {
        while matches!(self.tokens.front(), Some(Token::Newline)) {
            self.tokens.pop_front();
        }
    }

    /// Commands up to one of some reserved words, a closing bracket, or the end.
    fn list(&mut self, ends: &[&str]) -> Result<Command, Unreadable> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unreadable);
        }
        let mut commands = Vec::new();
        loop {
            while matches!(self.tokens.front(), Some(Token::Newline | Token::Operator(";" | "&"))) {
                self.tokens.pop_front();
            }
            let ended = match self.tokens.front() {
                None | Some(Token::Operator(")" | ";;")) => true,
                _ => self.keyword().is_some_and(|word| ends.contains(&word)),
            };
            if ended {
                self.depth -= 1;
                return Ok(Command::List(commands));
            }
            commands.push(self.and_or()?);
        }
    }

    fn and_or(&mut self) -> Result<Command, Unreadable> {
        let mut left = self.pipeline()?;
        loop {
            let and = self.take_operator("&&");
            if !and && !self.take_operator("||") {
                return Ok(left);
            }
            self.skip_newlines();
            let (first, second) = (Box::new(left), Box::new(self.pipeline()?));
            left = if and { Command::And(first, second) } else { Command::Or(first, second) };
        }
    }

    fn pipeline(&mut self) -> Result<Command, Unreadable> {
        if self.take_keyword("!") {
            return Ok(Command::Not(Box::new(self.pipeline()?)));
        }
        let mut stages = vec![self.command()?];
        while self.take_operator("|") {
            self.skip_newlines();
            stages.push(self.command()?);
        }
        match stages.len() {
            1 => stages.pop().ok_or(Unreadable),
            _ => Ok(Command::Pipe(stages)),
        }
    }

    fn command(&mut self) -> Result<Command, Unreadable> {
        let subshell = matches!(self.tokens.front(), Some(Token::Operator("(")));
        let compound = match self.keyword() {
            Some("if") => Some(self.condition()?),
            Some("for") => Some(self.for_each()?),
            Some("while" | "until") => Some(self.repeat()?),
            Some("case") => Some(self.case()?),
            Some("{") => {
                self.tokens.pop_front();
                let inside = self.list(&["}"])?;
                self.need_keyword("}")?;
                Some(inside)
            }
            _ if subshell => {
                self.tokens.pop_front();
                let inside = self.list(&[])?;
                if !self.take_operator(")") {
                    return Err(Unreadable);
                }
                Some(inside)
            }
            _ => None,
        };
        let Some(command) = compound else { return self.simple() };
        let mut redirects = Vec::new();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        if redirects.is_empty() {
            return Ok(command);
        }
        Ok(Command::Redirected { command: Box::new(command), redirects })
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, Unreadable> {
        let Some(Token::Redirect(descriptor, operator)) = self.tokens.front().cloned() else {
            return Ok(None);
        };
        self.tokens.pop_front();
        match self.tokens.pop_front() {
            Some(Token::Word(target) | Token::Here(target)) => {
                Ok(Some(Redirect { descriptor, operator: operator.to_owned(), target }))
            }
            _ => Err(Unreadable),
        }
    }

    fn condition(&mut self) -> Result<Command, Unreadable> {
        let mut branches = Vec::new();
        while self.take_keyword("if") || self.take_keyword("elif") {
            let condition = self.list(&["then"])?;
            self.need_keyword("then")?;
            branches.push((condition, self.list(&["elif", "else", "fi"])?));
        }
        let otherwise = self.take_keyword("else").then(|| self.list(&["fi"])).transpose()?;
        self.need_keyword("fi")?;
        Ok(Command::If { branches, otherwise: otherwise.map(Box::new) })
    }

    fn for_each(&mut self) -> Result<Command, Unreadable> {
        self.need_keyword("for")?;
        let name = self.keyword().ok_or(Unreadable)?.to_owned();
        self.tokens.pop_front();
        self.skip_newlines();
        let mut words = None;
        if self.take_keyword("in") {
            let mut listed = Vec::new();
            while let Some(Token::Word(word)) = self.tokens.front().cloned() {
                self.tokens.pop_front();
                listed.push(word);
            }
            words = Some(listed);
        }
        self.take_operator(";");
        Ok(Command::For { name, words, body: Box::new(self.body()?) })
    }

    /// `do ... done`
    fn body(&mut self) -> Result<Command, Unreadable> {
        self.skip_newlines();
        self.need_keyword("do")?;
        let body = self.list(&["done"])?;
        self.need_keyword("done")?;
        Ok(body)
    }

    fn repeat(&mut self) -> Result<Command, Unreadable> {
        let until = self.take_keyword("until");
        if !until {
            self.need_keyword("while")?;
        }
        let condition = Box::new(self.list(&["do"])?);
        Ok(Command::While { until, condition, body: Box::new(self.body()?) })
    }

    fn case(&mut self) -> Result<Command, Unreadable> {
        self.need_keyword("case")?;
        let Some(Token::Word(word)) = self.tokens.pop_front() else { return Err(Unreadable) };
        self.skip_newlines();
        self.need_keyword("in")?;
        let mut arms = Vec::new();
        loop {
            self.skip_newlines();
            if self.take_keyword("esac") {
                return Ok(Command::Case { word, arms });
            }
            self.take_operator("(");
            let mut patterns = Vec::new();
            loop {
                let Some(Token::Word(pattern)) = self.tokens.pop_front() else {
                    return Err(Unreadable);
                };
                patterns.push(pattern);
                if self.take_operator(")") {
                    break;
                }
                if !self.take_operator("|") {
                    return Err(Unreadable);
                }
            }
            arms.push((patterns, self.list(&["esac"])?));
            self.take_operator(";;");
        }
    }

    fn simple(&mut self) -> Result<Command, Unreadable> {
        let (mut assignments, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            let Some(Token::Word(word)) = self.tokens.front().cloned() else { break };
            self.tokens.pop_front();
            match assignment(&word).filter(|_| words.is_empty()) {
                Some(found) => assignments.push(found),
                None => words.push(word),
            }
            if words.len() == 1 && assignments.is_empty() && self.take_operator("(") {
                return self.function(&words[0]);
            }
        }
        if assignments.is_empty() && words.is_empty() && redirects.is_empty() {
            return Err(Unreadable);
        }
        Ok(Command::Simple { assignments, words, redirects })
    }

    fn function(&mut self, name: &Word) -> Result<Command, Unreadable> {
        let [Part::Text(name)] = &name[..] else { return Err(Unreadable) };
        if !self.take_operator(")") {
            return Err(Unreadable);
        }
        self.skip_newlines();
        Ok(Command::Function { name: name.clone(), body: Rc::new(self.command()?) })
    }
}

/// `NAME=value`, taken apart.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Part::Text(first)) = word.first() else { return None };
    let (name, value) = first.split_once('=')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !fits || !name.chars().all(plain) {
        return None;
    }
    let mut rest = Word::new();
    if !value.is_empty() {
        rest.push(Part::Text(value.to_owned()));
    }
    rest.extend(word[1..].iter().cloned());
    Some((name.to_owned(), rest))
}
