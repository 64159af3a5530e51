//! The evaluator: from expressions to values.
//!
//! It is lazy and by reference. Names are resolved by a [`Scope`] that is handed in, which
//! evaluates what it stands for at the first question and remembers the answer; nothing is ever
//! copied into a context. Each error carries the place of the expression that failed, and where
//! parts are independent (the elements of an object, the arguments of a call) all of their errors
//! are reported.
//!
//! Evaluation recurses with the expression, and through scopes with chains of references. The
//! depth is bounded by [`MAX_DEPTH`], for which [`with_large_stack`] provides the room.

mod access;
mod call;
mod collection;
pub mod constraint;
mod operator;
mod template;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::thread;

use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::function::{Failure, Files};
use crate::syntax::ast::{Expr, ExprKind, Ident, Name};
use crate::syntax::span::Span;
use crate::value::{Component, Key, NumberError, Reason, Type, Value};

/// How deep evaluation may nest, through expressions and references alike.
pub const MAX_DEPTH: usize = 32_768;
/// How deep collections may nest in a value.
const MAX_VALUE_DEPTH: u16 = 512;
/// How many values may stand in a value. Shared parts make it easy to double it with each line.
const MAX_VALUE_NODES: u32 = 10_000_000;
/// The stack that [`MAX_DEPTH`] levels fit on, in bytes. Pages that are not touched cost nothing.
const STACK_BYTES: usize = 1 << 30;

/// Runs `body` on a thread whose stack has room for [`MAX_DEPTH`] levels of evaluation.
///
/// # Errors
/// The thread could not be started.
pub fn with_large_stack<T: Send>(body: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("evaluate".into()).stack_size(STACK_BYTES);
        match builder.spawn_scoped(scope, body)?.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The outcome of an evaluation. No errors in `Err` means that they have been reported already.
pub type Evaluated<T = Value> = Result<T, Diagnostics>;

/// Where names come from.
pub trait Scope {
    /// Resolves a reference.
    ///
    /// # Errors
    /// There is nothing of that name; or what it stands for could not be evaluated, which has
    /// been reported where it stands and is an `Err` without diagnostics.
    fn resolve(&self, reference: &Reference<'_>) -> Evaluated<Resolved>;

    /// The value of an attribute of a component.
    ///
    /// # Errors
    /// As of [`Scope::resolve`].
    fn attribute(&self, component: &Component, name: &Ident) -> Evaluated;
}

/// A reference as it is written: a name and the attributes that follow it directly.
#[derive(Clone, Debug)]
pub struct Reference<'a> {
    /// The first name, such as `server`.
    pub root: &'a Name,
    /// Its place.
    pub span: Span,
    /// The names behind dots, such as `web` and `address`.
    pub steps: Vec<&'a Ident>,
}

impl Reference<'_> {
    /// From the first name to the step with this number, counted from 1.
    pub fn span_to(&self, step: usize) -> Span {
        match step.checked_sub(1).and_then(|last| self.steps.get(last)) {
            Some(step) => self.span.to(step.span),
            None => self.span,
        }
    }
}

/// What a [`Reference`] stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The value.
    pub value: Value,
    /// How many of the steps led to it; the rest is looked up in it.
    pub steps: usize,
}

/// A function that the host adds, such as `debian`.
pub type Extension<'a> = Box<dyn Fn(&[Value]) -> Result<Value, Failure> + 'a>;

/// Parses the text of a template that was read from the file of this path.
pub type ParseTemplate<'a> = Box<dyn Fn(&str, String) -> Evaluated<Expr> + 'a>;

/// What all evaluations of a stack share.
pub struct Environment<'a> {
    files: &'a dyn Files,
    parse_template: ParseTemplate<'a>,
    extensions: HashMap<&'static str, Extension<'a>>,
    templates: RefCell<HashMap<String, Arc<Expr>>>,
    depth: Cell<usize>,
}

impl<'a> Environment<'a> {
    /// An environment with these files, in which `parse_template` parses templates.
    pub fn new(files: &'a dyn Files, parse_template: ParseTemplate<'a>) -> Self {
        Self {
            files,
            parse_template,
            extensions: HashMap::new(),
            templates: RefCell::default(),
            depth: Cell::new(0),
        }
    }

    /// Adds a function. It takes precedence over a built-in one of the same name.
    pub fn add_function(&mut self, name: &'static str, body: Extension<'a>) {
        self.extensions.insert(name, body);
    }
}

/// Evaluates expressions in one scope.
#[derive(Clone, Copy)]
pub struct Evaluator<'a> {
    environment: &'a Environment<'a>,
    scope: &'a dyn Scope,
    /// Names that `for` expressions have given, the innermost first.
    locals: Option<&'a Local<'a>>,
    /// The item of the splat at hand.
    splat_item: Option<&'a Value>,
    in_template_file: bool,
}

/// A name that a `for` expression has given to an element or its key.
struct Local<'a> {
    name: &'a str,
    value: Value,
    outer: Option<&'a Local<'a>>,
}

impl<'a> Evaluator<'a> {
    /// An evaluator for expressions whose names are resolved in `scope`.
    pub fn new(environment: &'a Environment<'a>, scope: &'a dyn Scope) -> Self {
        Self { environment, scope, locals: None, splat_item: None, in_template_file: false }
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// All that is wrong with it, as far as its parts are independent.
    pub fn evaluate(&self, expr: &Expr) -> Evaluated {
        let depth = &self.environment.depth;
        if depth.get() >= MAX_DEPTH {
            return error(expr.span, "expressions and references nest too deeply")
                .map_err(|errors| help(errors, "break the chain of references up"));
        }
        depth.set(depth.get() + 1);
        let result = self.dispatch(expr);
        depth.set(depth.get() - 1);
        let value = result?;
        if value.depth() > MAX_VALUE_DEPTH {
            return error(expr.span, "lists and objects nest too deeply in this value");
        }
        if value.nodes() > MAX_VALUE_NODES {
            let summary = format!("this value stands for more than {MAX_VALUE_NODES} values");
            return error(expr.span, summary);
        }
        Ok(value)
    }

    fn dispatch(&self, expr: &Expr) -> Evaluated {
        match &expr.kind {
            ExprKind::Error => Ok(Value::unknown(Type::Any, Reason::new("it could not be parsed"))),
            ExprKind::Null => Ok(Value::null()),
            ExprKind::Bool(value) => Ok((*value).into()),
            ExprKind::Number(text) => match text.parse::<crate::value::Number>() {
                Ok(number) => Ok(number.into()),
                Err(failure) => number_error(expr.span, failure),
            },
            ExprKind::String(text) => Ok(text.clone().into()),
            ExprKind::Template(template) => self.template(template, expr.span),
            ExprKind::Variable(_) | ExprKind::GetAttr(_) => self.reference_or_attribute(expr),
            ExprKind::SplatItem => match self.splat_item {
                Some(item) => Ok(item.clone()),
                None => error(expr.span, "there is no splat around this"),
            },
            ExprKind::Index(index) => self.index(index, expr.span),
            ExprKind::Splat(splat) => self.splat(splat),
            ExprKind::Call(call) => self.call(call, expr.span),
            ExprKind::Tuple(elements) => self.all(elements).map(Value::tuple),
            ExprKind::Object(items) => self.object(items),
            ExprKind::For(each) => self.for_expr(each),
            ExprKind::Conditional(conditional) => self.conditional(conditional, expr.span),
            ExprKind::Unary(op, operand) => self.unary(*op, operand, expr.span),
            ExprKind::Binary(binary) => self.binary(binary, expr.span),
        }
    }

    /// The values of several expressions, or the errors of all of them.
    fn all<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>) -> Evaluated<Vec<Value>> {
        let mut values = Vec::new();
        let mut errors = None;
        for expr in exprs {
            match self.evaluate(expr) {
                Ok(value) => values.push(value),
                Err(found) => errors.get_or_insert_with(Diagnostics::new).extend(found),
            }
        }
        errors.map_or(Ok(values), Err)
    }

    fn local(&self, name: &str) -> Option<&'a Value> {
        let mut next = self.locals;
        while let Some(local) = next {
            if local.name == name {
                return Some(&local.value);
            }
            next = local.outer;
        }
        None
    }

    /// Runs `body` with names for an element and, where one is wanted, its key.
    fn with_locals<T>(
        &self,
        key: Option<(&Ident, Value)>,
        value: (&Ident, Value),
        body: impl FnOnce(&Evaluator<'_>) -> T,
    ) -> T {
        let outer = key.map(|(name, value)| Local { name: &name.name, value, outer: self.locals });
        let outer = outer.as_ref().or(self.locals);
        let inner = Local { name: &value.0.name, value: value.1, outer };
        body(&Evaluator { locals: Some(&inner), ..*self })
    }
}

/// A scope in which only the entries of a map are known.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a>(pub &'a BTreeMap<Key, Value>);

impl Scope for Variables<'_> {
    fn resolve(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        if let Some(value) = self.0.get(reference.root) {
            return Ok(Resolved { value: value.clone(), steps: 0 });
        }
        let names = self.0.keys().map(|key| &**key);
        let unknown = Diagnostic::error(
            reference.span,
            format!("there is no variable named \"{}\"", reference.root),
        );
        Err(suggest(unknown, reference.root, names).into())
    }

    fn attribute(&self, component: &Component, name: &Ident) -> Evaluated {
        error(name.span, format!("the attributes of {component} cannot be read here"))
            .map_err(|errors| help(errors, "hand the attribute itself in as a variable"))
    }
}

/// Fails with one error.
fn error<T>(span: Span, summary: impl Into<String>) -> Evaluated<T> {
    Err(Diagnostic::error(span, summary).into())
}

fn number_error<T>(span: Span, failure: NumberError) -> Evaluated<T> {
    error(span, failure.to_string())
}

/// Adds a way out to each error.
fn help(errors: Diagnostics, text: &str) -> Diagnostics {
    let mut helped = Diagnostics::new();
    helped.extend(errors.into_iter().map(|diagnostic| diagnostic.with_help(text)));
    helped
}

/// Adds the nearest of the names that there are.
fn suggest<'n>(
    diagnostic: Diagnostic,
    name: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Diagnostic {
    match nearest(name, names) {
        Some(near) => diagnostic.with_help(format!("did you mean \"{near}\"?")),
        None => diagnostic,
    }
}
