//! Following maintainer scripts without running anything.
//!
//! A script is read and followed as it would go at a first installation: variables, conditions
//! and loops are evaluated, and the commands that this module knows are done to the tree in
//! memory: directories, links, owners, modes, accounts, alternatives, configuration files. No
//! program is run and nothing outside of the tree is looked at. What serves only a running system
//! (services, caches) is passed over. A command that is not known is noted, so that the user can be
//! told what the image lacks.

mod expand;
mod files;
mod known;
mod lexer;
mod parser;
mod pattern;
mod streams;
mod syntax;
mod test;
mod text;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::accounts::Accounts;
use super::alternatives::Alternatives;
use super::diversions::Diversions;
use crate::tree::Tree;

use known::Role;
use syntax::{Command, Redirect};

/// How many commands of one script are followed.
const MAX_STEPS: usize = 100_000;
/// How deep functions may call each other.
const MAX_CALLS: usize = 50;

/// What scripts work on.
pub(super) struct Scene<'a> {
    pub(super) tree: &'a mut Tree,
    pub(super) accounts: &'a mut Accounts,
    pub(super) alternatives: &'a mut Alternatives,
    pub(super) diversions: &'a mut Diversions,
    /// The architecture of the image, as Debian calls it.
    pub(super) architecture: &'a str,
}

/// One script to be followed.
#[derive(Clone, Copy)]
pub(super) struct Followed<'a> {
    pub(super) package: &'a str,
    pub(super) architecture: &'a str,
    /// `preinst`, `postinst`.
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    /// The arguments that dpkg would give it.
    pub(super) arguments: &'a [String],
    /// The package's `templates`: the questions of debconf with their defaults.
    pub(super) templates: &'a str,
}

/// Follows a script. The result is what of it could not be followed: names of commands.
pub(super) fn follow(scene: Scene<'_>, script: Followed<'_>) -> BTreeSet<String> {
    let first = script.text.lines().next().unwrap_or_default();
    let mut missed = BTreeSet::new();
    if !is_shell(first) {
        let program = first.trim_start_matches("#!").split_ascii_whitespace().next();
        missed.insert(program.unwrap_or("an unknown interpreter").to_owned());
        return missed;
    }
    let Ok(command) = parser::parse(script.text) else {
        missed.insert("a form of the shell that is not understood".to_owned());
        return missed;
    };
    let mut follower = Follower::new(scene, script);
    follower.run(&command);
    follower.clear_temporary();
    follower.missed
}

/// Whether a script's first line names a shell.
fn is_shell(first: &str) -> bool {
    let interpreter =
        first.strip_prefix("#!").and_then(|rest| rest.split_ascii_whitespace().next());
    let name = interpreter.and_then(|path| path.rsplit('/').next());
    matches!(name, Some("sh" | "bash" | "dash"))
}

/// A text that may not be known.
type Value = Option<String>;

/// How a command ended. `Unknown` counts as failure, but what hangs on it is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Yes,
    No,
    Unknown,
}

impl Status {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// Where it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next(Status),
    Break,
    Continue,
    Return(Status),
    Exit,
}

struct Follower<'a> {
    scene: Scene<'a>,
    script: Followed<'a>,
    variables: BTreeMap<String, Value>,
    arguments: Vec<Value>,
    functions: BTreeMap<String, Rc<Command>>,
    missed: BTreeSet<String>,
    /// What the command reads; none where that is this program's own input, which is empty.
    input: Option<Value>,
    /// What is written, where somebody takes it.
    output: Option<Value>,
    last: Status,
    steps: usize,
    calls: usize,
    temporary: usize,
}

impl<'a> Follower<'a> {
    fn new(scene: Scene<'a>, script: Followed<'a>) -> Self {
        let mut variables = BTreeMap::new();
        for (name, value) in [
            ("DPKG_MAINTSCRIPT_PACKAGE", script.package),
            ("DPKG_MAINTSCRIPT_NAME", script.name),
            ("DPKG_MAINTSCRIPT_ARCH", script.architecture),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("IFS", " \t\n"),
        ] {
            variables.insert(name.to_owned(), Some(value.to_owned()));
        }
        Self {
            arguments: script.arguments.iter().cloned().map(Some).collect(),
            scene,
            script,
            variables,
            functions: BTreeMap::new(),
            missed: BTreeSet::new(),
            input: None,
            output: None,
            last: Status::Yes,
            steps: 0,
            calls: 0,
            temporary: 0,
        }
    }

    fn miss(&mut self, what: &str) {
        self.missed.insert(what.to_owned());
    }

    fn run(&mut self, command: &Command) -> Flow {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            self.miss("a loop that does not end");
            return Flow::Exit;
        }
        let flow = self.step(command);
        if let Flow::Next(status) = flow {
            self.last = status;
        }
        flow
    }

    fn step(&mut self, command: &Command) -> Flow {
        match command {
            Command::Simple { assignments, words, redirects } => {
                self.redirected(redirects, |this| this.simple(assignments, words, redirects))
            }
            Command::List(commands) => {
                for command in commands {
                    let flow = self.run(command);
                    if !matches!(flow, Flow::Next(_)) {
                        return flow;
                    }
                }
                Flow::Next(if commands.is_empty() { Status::Yes } else { self.last })
            }
            Command::And(left, right) => match self.run(left) {
                Flow::Next(Status::Yes) => self.run(right),
                Flow::Next(Status::Unknown) => self.left_out(right, Status::Unknown),
                flow => flow,
            },
            Command::Or(left, right) => match self.run(left) {
                Flow::Next(Status::No | Status::Unknown) => self.run(right),
                flow => flow,
            },
            Command::Not(inner) => match self.run(inner) {
                Flow::Next(Status::Yes) => Flow::Next(Status::No),
                Flow::Next(Status::No) => Flow::Next(Status::Yes),
                flow => flow,
            },
            Command::Pipe(stages) => self.pipe(stages),
            Command::If { branches, otherwise } => self.branch(branches, otherwise.as_deref()),
            Command::For { name, words, body } => self.for_each(name, words.as_deref(), body),
            Command::While { until, condition, body } => self.repeat(*until, condition, body),
            Command::Case { word, arms } => self.case(word, arms),
            Command::Function { name, body } => {
                self.functions.insert(name.clone(), Rc::clone(body));
                Flow::Next(Status::Yes)
            }
            Command::Redirected { command, redirects } => {
                self.redirected(redirects, |this| this.run(command))
            }
        }
    }

    /// Passes over a command that hangs on something unknown; notes it if it does anything.
    fn left_out(&mut self, command: &Command, status: Status) -> Flow {
        let mut first = None;
        command.each_name(&mut |name| {
            let acts = !self.functions.contains_key(name) && known::role(name).acts();
            if acts && first.is_none() {
                first = Some(name.to_owned());
            }
        });
        if let Some(name) = first {
            self.miss(&name);
        }
        Flow::Next(status)
    }

    fn pipe(&mut self, stages: &[Command]) -> Flow {
        let outer = self.input.clone();
        let mut flow = Flow::Next(Status::Yes);
        for (position, stage) in stages.iter().enumerate() {
            if position + 1 == stages.len() {
                flow = self.run(stage);
            } else {
                let (output, _) = self.captured(|this| this.run(stage));
                self.input = Some(output);
            }
        }
        self.input = outer;
        flow
    }

    fn branch(&mut self, branches: &[(Command, Command)], otherwise: Option<&Command>) -> Flow {
        for (condition, body) in branches {
            match self.run(condition) {
                Flow::Next(Status::Yes) => return self.run(body),
                Flow::Next(Status::No) => {}
                Flow::Next(Status::Unknown) => {
                    self.left_out(body, Status::Yes);
                }
                flow => return flow,
            }
        }
        otherwise.map_or(Flow::Next(Status::Yes), |otherwise| self.run(otherwise))
    }

    fn for_each(&mut self, name: &str, words: Option<&[syntax::Word]>, body: &Command) -> Flow {
        let values = match words {
            None => self.arguments.clone(),
            Some(words) => self.fields(words),
        };
        for value in values {
            if value.is_none() {
                return self.left_out(body, Status::Yes);
            }
            self.variables.insert(name.to_owned(), value);
            match self.run(body) {
                Flow::Break => break,
                Flow::Next(_) | Flow::Continue => {}
                flow => return flow,
            }
        }
        Flow::Next(Status::Yes)
    }

    fn repeat(&mut self, until: bool, condition: &Command, body: &Command) -> Flow {
        loop {
            match self.run(condition) {
                Flow::Next(Status::Unknown) => return self.left_out(body, Status::Yes),
                Flow::Next(status) if (status == Status::Yes) == until => break,
                Flow::Next(_) => {}
                flow => return flow,
            }
            match self.run(body) {
                Flow::Break => break,
                Flow::Next(_) | Flow::Continue => {}
                flow => return flow,
            }
        }
        Flow::Next(Status::Yes)
    }

    fn case(&mut self, word: &syntax::Word, arms: &[(Vec<syntax::Word>, Command)]) -> Flow {
        let Some(value) = self.text(word) else {
            for (_, body) in arms {
                self.left_out(body, Status::Yes);
            }
            return Flow::Next(Status::Yes);
        };
        for (patterns, body) in arms {
            for pattern in patterns {
                let pattern = self.pattern(pattern);
                if pattern.is_some_and(|pattern| pattern::matches(&pattern, &value)) {
                    return self.run(body);
                }
            }
        }
        Flow::Next(Status::Yes)
    }

    fn simple(
        &mut self,
        assignments: &[(String, syntax::Word)],
        words: &[syntax::Word],
        redirects: &[Redirect],
    ) -> Flow {
        let words = self.fields(words);
        let kept: Vec<(String, Option<Value>)> = assignments
            .iter()
            .map(|(name, _)| (name.clone(), self.variables.get(name).cloned()))
            .collect();
        self.last = Status::Yes;
        for (name, value) in assignments {
            let value = self.text(value);
            self.variables.insert(name.clone(), value);
        }
        let Some(name) = words.first() else {
            return Flow::Next(if redirects.is_empty() { self.last } else { Status::Yes });
        };
        let flow = match name {
            None => {
                self.miss("a command whose name is not known before");
                Flow::Next(Status::Unknown)
            }
            Some(name) => self.call(&name.clone(), &words[1..]),
        };
        // Assignments before a command are for that command alone.
        for (name, value) in kept {
            match value {
                Some(value) => self.variables.insert(name, value),
                None => self.variables.remove(&name),
            };
        }
        flow
    }

    fn call(&mut self, name: &str, words: &[Value]) -> Flow {
        if let Some(body) = self.functions.get(name).cloned() {
            return self.call_function(&body, words);
        }
        match (name, words.first().cloned().flatten()) {
            ("exit", _) => return Flow::Exit,
            ("return", word) => {
                let status = word.map_or(self.last, |word| Status::of(word == "0"));
                return Flow::Return(status);
            }
            ("break", _) => return Flow::Break,
            ("continue", _) => return Flow::Continue,
            ("." | "source", path) => return self.source(path),
            _ => {}
        }
        Flow::Next(self.command(name, words))
    }

    fn call_function(&mut self, body: &Command, words: &[Value]) -> Flow {
        if self.calls == MAX_CALLS {
            self.miss("functions that call each other without end");
            return Flow::Exit;
        }
        let outer = std::mem::replace(&mut self.arguments, words.to_vec());
        self.calls += 1;
        let flow = self.run(body);
        self.calls -= 1;
        self.arguments = outer;
        match flow {
            Flow::Return(status) => Flow::Next(status),
            flow => flow,
        }
    }

    /// Goes on with another file of the image.
    fn source(&mut self, path: Value) -> Flow {
        let Some(path) = path else { return Flow::Next(Status::Unknown) };
        if path.starts_with("/usr/share/debconf/") {
            return Flow::Next(Status::Yes);
        }
        let parsed = self.read(&path).and_then(|text| parser::parse(&text).ok());
        match parsed {
            Some(command) if self.calls < MAX_CALLS => {
                self.calls += 1;
                let flow = self.run(&command);
                self.calls -= 1;
                match flow {
                    Flow::Return(status) => Flow::Next(status),
                    flow => flow,
                }
            }
            _ => {
                self.miss(&path);
                Flow::Next(Status::No)
            }
        }
    }

    /// Follows another script of the image, as a program of its own.
    fn follow_file(&mut self, path: &str, words: &[Value]) -> Option<Status> {
        let text = self.read(path)?;
        if !is_shell(text.lines().next()?) || self.calls >= MAX_CALLS {
            return None;
        }
        let command = parser::parse(&text).ok()?;
        let (variables, functions) = (self.variables.clone(), self.functions.clone());
        let flow = self.call_function(&command, words);
        (self.variables, self.functions) = (variables, functions);
        Some(match flow {
            Flow::Next(status) | Flow::Return(status) => status,
            Flow::Break | Flow::Continue | Flow::Exit => Status::Yes,
        })
    }

    fn command(&mut self, name: &str, words: &[Value]) -> Status {
        let base = name.rsplit('/').next().unwrap_or(name);
        match known::role(base) {
            Role::Test => self.test(base, words),
            Role::Text => self.text_command(base, words),
            Role::File => self.file_command(base, words),
            Role::Tool => self.tool(base, words),
            Role::Elsewhere => Status::Yes,
            Role::Absent => Status::No,
            Role::Opaque => {
                self.print_unknown();
                Status::Unknown
            }
            Role::Unknown => {
                if name.starts_with('/')
                    && let Some(status) = self.follow_file(name, words)
                {
                    return status;
                }
                self.miss(base);
                self.print_unknown();
                Status::Unknown
            }
        }
    }

    /// The words of a command whose all arguments must be known; notes it otherwise.
    fn known_words(&mut self, name: &str, words: &[Value]) -> Option<Vec<String>> {
        let known: Option<Vec<String>> = words.iter().cloned().collect();
        if known.is_none() {
            self.miss(name);
        }
        known
    }
}

#[cfg(test)]
mod tests;
