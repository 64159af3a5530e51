//! What every verb works with: the root, the stack's directory, and how it prints.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_daemon::client::{Client, ClientError, ensure_daemon};
use kiln_daemon::ledger::Ledger;
use kiln_daemon::prepare::{Draft, Home, PrepareError, Source};
use kiln_daemon::root::Root;
use kiln_model::name::StackName;
use serde::Serialize;

use crate::cli::{Global, Variables};
use crate::error::CommandError;
use crate::render::style::Palette;

/// For how long a question is put to the next daemon where one has ended before it answered.
const ASKED_AGAIN: Duration = Duration::from_secs(20);

/// The pause before that.
const PAUSE: Duration = Duration::from_millis(20);

/// What every verb works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// The root.
    pub(crate) root: Root,
    /// The stack's directory, as it was given.
    pub(crate) directory: PathBuf,
    /// Whether standard output gets one JSON document.
    pub(crate) json: bool,
    /// Colors of results.
    pub(crate) out: Palette,
    /// Colors of messages.
    pub(crate) err: Palette,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let wanted = !global.no_color && !set("NO_COLOR");
        Self {
            root: Root::new(std::path::absolute(&global.root).unwrap_or(global.root.clone())),
            directory: global.stack.clone(),
            json: global.json,
            out: Palette::new(wanted && io::stdout().is_terminal()),
            err: Palette::new(wanted && io::stderr().is_terminal()),
        }
    }

    /// Prints a result: `document` with `--json`, else `text`.
    pub(crate) fn print(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        let mut text = if self.json { to_json(document)? } else { text() };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        print_text(&text)
    }

    /// Says something to the person, on standard error.
    #[expect(clippy::unused_self, reason = "it is the voice of the command")]
    pub(crate) fn say(&self, text: &str) {
        // Nobody listening is no error.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// The stack's files, with what is said from outside.
    pub(crate) fn source(&self, variables: &Variables) -> Source {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Source {
            directory: self.directory.clone(),
            caller: std::env::current_dir().unwrap_or_default(),
            vars: variables.vars.clone(),
            var_files: variables.var_files.clone(),
            env,
            secret_directories: None,
        }
    }

    /// The stack evaluated against what the root says of it, for reading. Warnings are shown.
    pub(crate) fn draft(
        &self,
        variables: &Variables,
        ledger: Option<&Ledger>,
    ) -> Result<Draft, CommandError> {
        let draft = Draft::new(&self.source(variables), ledger)?;
        if !draft.warnings.diagnostics.is_empty() {
            self.say(draft.warnings.render(self.err.is_on()).trim_end());
        }
        Ok(draft)
    }

    /// The store of the root, which must exist.
    pub(crate) fn ledger(&self) -> Result<Ledger, CommandError> {
        Ledger::open(&self.root)?.ok_or_else(|| {
            let root = self.root.path().display();
            CommandError::failed(format!("nothing has been applied in {root} yet"))
                .with_help("`kiln apply` brings a stack up; --root DIR names another root")
        })
    }

    /// The name of the stack in the directory: as it was applied from there, else as its
    /// configuration says. What is no directory may be a name itself.
    pub(crate) fn stack_name(&self, ledger: &Ledger) -> Result<StackName, CommandError> {
        let known = ledger.stacks()?;
        let here = Home::of(&self.directory).directory;
        let applied: Vec<&StackName> = known
            .iter()
            .filter(|stack| {
                Home::known(&self.root, stack).is_ok_and(|h| h.is_some_and(|h| h.directory == here))
            })
            .collect();
        if let [only] = applied.as_slice() {
            return Ok((*only).clone());
        }
        let named = self.directory.to_str().and_then(|name| name.parse::<StackName>().ok());
        if let Some(name) = named.filter(|name| known.contains(name) && !self.directory.is_dir()) {
            return Ok(name);
        }
        match Draft::new(&self.source(&Variables::default()), Some(ledger)) {
            Ok(draft) => self.applied(draft.stack, &known),
            Err(PrepareError::Configuration(_)) if !self.has_files() => {
                let listed: Vec<&str> = known.iter().map(StackName::as_str).collect();
                let directory = self.directory.display();
                Err(CommandError::usage(format!("there is no stack in {directory}")).with_help(
                    format!(
                        "name a stack's directory with --stack; this root has {}",
                        if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
                    ),
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn applied(&self, stack: StackName, known: &[StackName]) -> Result<StackName, CommandError> {
        if known.contains(&stack) {
            return Ok(stack);
        }
        let root = self.root.path().display();
        Err(CommandError::failed(format!("stack {stack} has never been applied in {root}"))
            .with_help("`kiln apply` brings it up; --root DIR names another root"))
    }

    /// Whether the directory holds configuration files.
    pub(crate) fn has_files(&self) -> bool {
        fs::read_dir(&self.directory).is_ok_and(|entries| {
            entries.flatten().any(|e| e.file_name().as_encoded_bytes().ends_with(b".kiln.hcl"))
        })
    }

    /// A connection to the daemon, which is started where none runs.
    pub(crate) async fn client(&self) -> Result<Client, CommandError> {
        let program = kiln_daemon::server::own_program()
            .map_err(|e| CommandError::failed("this program cannot be found").caused_by(&e))?;
        let told = |pid| {
            let root = self.root.path().display();
            self.say(&format!("started the daemon of {root} in the background (pid {pid})"));
        };
        Ok(ensure_daemon(&self.root, &program, told).await?)
    }

    /// Runs what talks to the daemon.
    #[expect(clippy::unused_self, reason = "what waits, waits for the daemon of this context")]
    pub(crate) fn block_on<T, E: From<CommandError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CommandError::failed("the program cannot wait").caused_by(&e))?;
        runtime.block_on(work)
    }

    /// Asks the daemon what changes nothing. Where it ends before it has answered, the next one is
    /// asked, which is started if nobody else does so.
    pub(crate) fn ask<T>(
        &self,
        question: impl AsyncFn(Client) -> Result<T, ClientError>,
    ) -> Result<T, CommandError> {
        let begun = Instant::now();
        self.block_on(async {
            loop {
                match question(self.client().await?).await {
                    Err(error) if error.is_its_end() && begun.elapsed() < ASKED_AGAIN => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    answer => return Ok(answer?),
                }
            }
        })
    }

    /// Tells the daemon to change something. Where it ends before it has answered, nobody knows
    /// whether it did.
    pub(crate) fn tell<T>(
        &self,
        order: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
    ) -> Result<T, CommandError> {
        self.block_on(async { Ok(order(self.client().await?).await?) })
    }

    /// Asks the person; refuses where there is none.
    #[expect(clippy::unused_self, reason = "it is the voice of the command")]
    pub(crate) fn confirm(&self, question: &str) -> Result<bool, CommandError> {
        if !io::stdin().is_terminal() {
            return Err(CommandError::usage("this changes something, and nobody can be asked")
                .with_help("say --yes where no terminal is at hand"));
        }
        let mut stderr = io::stderr();
        let _ = write!(stderr, "{question} [y/N] ");
        let _ = stderr.flush();
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(|e| CommandError::failed("the answer cannot be read").caused_by(&e))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

/// One document, as it is printed.
pub(crate) fn to_json(document: &impl Serialize) -> Result<String, CommandError> {
    serde_json::to_string_pretty(document)
        .map_err(|e| CommandError::failed("the document cannot be written").caused_by(&e))
}

/// Writes to standard output. A reader that has gone away ends the program quietly.
pub(crate) fn print_text(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::failed("the result cannot be written").caused_by(&error))
        }
        _ => Ok(()),
    }
}
