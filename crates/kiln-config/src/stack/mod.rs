//! Stacks: from the files of a directory to specs.
//!
//! [`load`] reads `*.kiln.hcl`, evaluates lazily by reference, and lowers each component to the
//! spec that the model knows. Nothing is evaluated before it is asked for, so an address may stand
//! in a component's environment although addresses depend on which components there are: they
//! depend on the networks' ranges and the servers' `network` only ([`world`]). All errors of a run
//! are reported, each once.

mod base;
#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "methods of Field are not general over its lifetime, closures are"
)]
mod decode;
mod expand;
pub mod files;
pub mod init;
#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "methods of Field are not general over its lifetime, closures are"
)]
mod lower;
mod memo;
mod output;
mod program;
mod schema;
mod scope;
mod talk;
mod variable;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_model::address::Offsets;
use kiln_model::alarm::Hooks;
use kiln_model::digest::Digest;
use kiln_model::generation::Output;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::spec::Spec;
use kiln_model::spec::image::Recipe;
use kiln_model::trust::Demands;

pub use lower::SecretValue;

use crate::diagnostic::{Diagnostic, Diagnostics, Report};
use crate::eval::{Environment, Evaluated, with_large_stack};
use crate::function::Directory;
use crate::syntax::ast::{Body, Expr};
use crate::syntax::span::{Sources, Span};
use crate::syntax::{parse_body, parse_template};
use decode::Sink;
use files::{STACK_ENDING, configuration_files, read_text};
use program::Program;
use schema::attribute;
use world::{Outside, World};

/// The prefix of environment variables that give values to variables.
pub const VARIABLE_PREFIX: &str = "KILN_VAR_";

/// What a stack is evaluated with, besides its files.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The stack's directory.
    pub directory: PathBuf,
    /// The directory that paths of `var_files` are relative to.
    pub directory_of_caller: PathBuf,
    /// `--var name=value`, in the order given: the part behind `--var`.
    pub vars: Vec<String>,
    /// `--var-file`, in the order given.
    pub var_files: Vec<PathBuf>,
    /// The environment. An empty variable counts as unset.
    pub env: BTreeMap<String, String>,
    /// Where the files of secrets may lie besides the stack's directory; `None` where they may lie
    /// anywhere, since whoever wrote the stack may read this machine's files anyway.
    pub secret_directories: Option<Vec<PathBuf>>,
    /// The addresses that the parent generation, and others that are kept, have given out; where
    /// empty, [`Surroundings::carried`] is asked.
    pub carried: Offsets,
}

/// What evaluation asks of what lies outside of it: the stack's files, its lock, the root's
/// secrets.
pub trait Surroundings {
    /// The digest of what a `copy` step copies: a file or directory of the stack's directory. The
    /// error is a message for people.
    fn copied(&self, from: &str) -> Result<Digest, String>;

    /// The digest of the inputs that an image's recipe is locked to; `None` where there is no
    /// lock for it.
    fn locked_inputs(&self, image: &ComponentId, recipe: &Recipe) -> Option<Digest>;

    /// The id of the present version of a secret: of this value, or of the generated one. `None`
    /// where it is not known.
    fn secret_version(&self, secret: &ComponentId, value: Option<&[u8]>) -> Option<String>;

    /// The addresses that generations of the stack of this name have given out and that are still
    /// kept. It is asked once, as soon as the name is known.
    fn carried(&self, stack: &StackName) -> Offsets {
        let _ = stack;
        Offsets::new()
    }
}

/// A stack after evaluation.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Its name: that of the `stack` block, else that of its directory.
    pub name: StackName,
    /// Its components, in the order of the files.
    pub specs: Vec<Spec>,
    /// Where each component's block stands in the report's sources.
    pub places: BTreeMap<ComponentId, Span>,
    /// The addresses in each network, for the generation.
    pub offsets: Offsets,
    /// What it demands of images.
    pub demands: Demands,
    /// Whom it tells of alarms.
    pub hooks: Hooks,
    /// Its outputs.
    pub outputs: BTreeMap<String, Output>,
    /// The values of secrets that are not generated.
    pub secrets: BTreeMap<ComponentId, SecretValue>,
    /// The warnings, and the sources that `places` point into.
    pub report: Report,
}

/// Loads the stack in `inputs.directory`.
///
/// # Errors
/// All that is wrong with it, in the order of the places.
pub fn load(inputs: &Inputs, surroundings: &(dyn Surroundings + Sync)) -> Result<Stack, Report> {
    with_large_stack(|| Loader::new(inputs).load(surroundings)).unwrap_or_else(|error| {
        let summary = format!("cannot start a thread to evaluate the stack: {error}");
        Err(Report {
            diagnostics: Diagnostic::error_without_place(summary).into(),
            ..Report::default()
        })
    })
}

struct Loader<'i> {
    inputs: &'i Inputs,
    sources: Sources,
    diagnostics: Diagnostics,
}

impl<'i> Loader<'i> {
    fn new(inputs: &'i Inputs) -> Self {
        Self { inputs, sources: Sources::default(), diagnostics: Diagnostics::new() }
    }

    fn load(mut self, surroundings: &dyn Surroundings) -> Result<Stack, Report> {
        let made = self.make(surroundings);
        self.diagnostics.settle();
        let report = Report { sources: self.sources, diagnostics: self.diagnostics };
        match made {
            Some(mut stack) if !report.diagnostics.has_errors() => {
                stack.report = report;
                Ok(stack)
            }
            _ => Err(report),
        }
    }

    fn make(&mut self, surroundings: &dyn Surroundings) -> Option<Stack> {
        let inputs = self.inputs;
        let (bodies, automatic) = self.read()?;
        let program = Program::new(bodies, &mut self.diagnostics);
        let name = stack_name(&program, &inputs.directory, &mut self.diagnostics);
        let given = variable::collect(
            &program.variables,
            &automatic,
            inputs,
            &mut self.sources,
            &mut self.diagnostics,
        );
        let files = match Directory::open(&inputs.directory) {
            Ok(files) => files,
            Err(error) => {
                let path = inputs.directory.display();
                let summary = format!("cannot open the directory {path}: {error}");
                self.diagnostics.push(Diagnostic::error_without_place(summary));
                return None;
            }
        };
        // Templates of `templatefile` become sources while the stack is evaluated.
        let sources = RefCell::new(std::mem::take(&mut self.sources));
        let mut environment =
            Environment::new(&files, Box::new(|path, text| template(&sources, path, text)));
        base::add_functions(&mut environment);
        let values =
            variable::evaluate(&program.variables, &given, &environment, &mut self.diagnostics);
        let sink: Sink = RefCell::new(std::mem::take(&mut self.diagnostics));
        let known = name.clone();
        let shown = known.as_ref().map_or("", StackName::as_str);
        let carried = match &known {
            Some(name) if inputs.carried.is_empty() => surroundings.carried(name),
            _ => inputs.carried.clone(),
        };
        let outside = Outside { inputs, surroundings, carried, stack_name: shown };
        let world = World::new(&program, outside, &environment, &sink);
        // The cell is empty: it was made with the world.
        let _ = world.variables.set(values);
        variable::validate(&world, &given);
        let made = evaluate(&world, name);
        drop(environment);
        self.diagnostics = sink.into_inner();
        self.sources = sources.into_inner();
        made
    }

    /// Reads and parses the stack's files; also the paths of files of variables.
    fn read(&mut self) -> Option<(Vec<Body>, Vec<PathBuf>)> {
        let directory = &self.inputs.directory;
        let found = match configuration_files(directory) {
            Ok(found) => found,
            Err(error) => {
                self.diagnostics.push(error);
                return None;
            }
        };
        if found.stack.is_empty() {
            let summary = format!("there is no *{STACK_ENDING} in {}", directory.display());
            let help = "`kiln init` makes a first one; --stack names another directory";
            self.diagnostics.push(Diagnostic::error_without_place(summary).with_help(help));
            return None;
        }
        let mut bodies = Vec::with_capacity(found.stack.len());
        for path in &found.stack {
            match read_text(path) {
                Ok(text) => {
                    let shown = path.strip_prefix(directory).unwrap_or(path);
                    let text: std::sync::Arc<str> = text.into();
                    let file = self.sources.add(shown, text.clone());
                    bodies.push(parse_body(file, &text, &mut self.diagnostics));
                }
                Err(error) => self.diagnostics.push(error),
            }
        }
        Some((bodies, found.automatic_variables().cloned().collect()))
    }
}

fn template(sources: &RefCell<Sources>, path: &str, text: String) -> Evaluated<Expr> {
    let file = sources.borrow_mut().add(path, text.as_str());
    let mut errors = Diagnostics::new();
    let expr = parse_template(file, &text, &mut errors);
    if errors.has_errors() { Err(errors) } else { Ok(expr) }
}

/// Evaluates everything, so that all errors are found.
fn evaluate(world: &World<'_>, name: Option<StackName>) -> Option<Stack> {
    let mut complete = true;
    for (index, local) in world.program.locals.iter().enumerate() {
        complete &= world.local(index, local.name.span).is_ok();
    }
    let mut stack = Stack {
        name: name?,
        specs: Vec::new(),
        places: BTreeMap::new(),
        offsets: Offsets::new(),
        demands: Demands::default(),
        hooks: Hooks::default(),
        outputs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        report: Report::default(),
    };
    for (block, declaration) in world.program.components.iter().enumerate() {
        let Ok(expansion) = world.expansion(block, declaration.name.span) else {
            complete = false;
            continue;
        };
        for index in 0..expansion.len() {
            let Some(lowered) = lower::lower(world, &expansion, (block, index)) else {
                complete = false;
                continue;
            };
            let id = lowered.spec.id.clone();
            if let Some(value) = lowered.secret {
                stack.secrets.insert(id.clone(), value);
            }
            // Several databases may share one.
            let implied = lowered.image.filter(|image| !stack.places.contains_key(&image.id));
            if let Some(image) = implied {
                stack.places.insert(image.id.clone(), declaration.block.span);
                stack.specs.push(image);
            }
            stack.places.insert(id, declaration.block.span);
            stack.specs.push(lowered.spec);
        }
    }
    match lower::demands::demands(world) {
        Some(demands) => stack.demands = demands,
        None => complete = false,
    }
    match lower::alarm::hooks(world) {
        Some(hooks) => stack.hooks = hooks,
        None => complete = false,
    }
    for (name, block) in &world.program.outputs {
        match output::output(world, block) {
            Some(output) => drop(stack.outputs.insert(name.to_string(), output)),
            None => complete = false,
        }
    }
    world.check_host_names();
    talk::check_cycles(world);
    lower::check_programs(world, &stack);
    if !world.sink.borrow().has_errors() {
        talk::check_mentions(world);
    }
    if let Ok(addresses) = world.addresses(Span::new(crate::syntax::span::FileId(0), 0, 0)) {
        stack.offsets.clone_from(&addresses.offsets);
    }
    // A failure has been reported where it arose; should one not have been, the stack is still
    // not to be used.
    if !complete && !world.sink.borrow().has_errors() {
        world.report(Diagnostic::error_without_place("the stack could not be evaluated"));
    }
    complete.then_some(stack)
}

/// The name of the `stack` block, else that of the directory.
fn stack_name(
    program: &Program,
    directory: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<StackName> {
    use crate::syntax::ast::ExprKind;
    let given = program.stack.as_ref().and_then(|block| attribute(&block.body, "name"));
    if let Some(given) = given {
        let span = given.expr.span;
        let ExprKind::String(text) = &given.expr.kind else {
            diagnostics.push(Diagnostic::error(span, "the stack's name must be plain text"));
            return None;
        };
        return text
            .parse()
            .map_err(|error: kiln_model::name::InvalidName| {
                diagnostics.push(Diagnostic::error(span, error.to_string()));
            })
            .ok();
    }
    let full = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let text = full.file_name().map(|name| name.to_string_lossy().into_owned());
    let text = text.unwrap_or_default();
    text.parse()
        .map_err(|_| {
            let summary = format!("the directory's name {text:?} cannot be the stack's name");
            let help = "name the stack: stack { name = \"shop\" }";
            diagnostics.push(Diagnostic::error_without_place(summary).with_help(help));
        })
        .ok()
}
