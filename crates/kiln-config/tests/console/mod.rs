//! A console for expressions that stand alone: a directory of their own and variables.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;

use kiln_config::diagnostic::Diagnostics;
use kiln_config::eval::constraint::parse_constraint;
use kiln_config::eval::{
    Environment, Evaluated, Evaluator, Extension, Reference, Resolved, Scope, Variables,
};
use kiln_config::function::Directory;
use kiln_config::syntax::ast::{Expr, Ident};
use kiln_config::syntax::span::Sources;
use kiln_config::syntax::{parse_expr, parse_template};
use kiln_config::value::{Component, Key, Value};

/// A directory and what the names in expressions stand for.
pub(crate) struct Console {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) variables: BTreeMap<Key, Value>,
}

impl Console {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, variables: BTreeMap::new() }
    }

    /// Writes a file below the directory.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the directory is made");
        fs::write(path, content).expect("the file is written");
    }

    pub(crate) fn variables(&self) -> Variables<'_> {
        Variables(&self.variables)
    }

    /// Gives the directory to `body`.
    pub(crate) fn with_files<T>(&self, body: impl FnOnce(&Directory) -> T) -> T {
        body(&Directory::open(self.directory.path()).expect("the directory opens"))
    }

    /// Gives an environment to `body`.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&mut Environment<'_>) -> T) -> T {
        let sources = RefCell::new(Sources::default());
        let parse = |path: &str, text: String| {
            let file = sources.borrow_mut().add(path, text.as_str());
            let mut diagnostics = Diagnostics::new();
            let expr = parse_template(file, &text, &mut diagnostics);
            if diagnostics.has_errors() { Err(diagnostics) } else { Ok(expr) }
        };
        self.with_files(|files| body(&mut Environment::new(files, Box::new(parse))))
    }

    /// The value of an expression, or all errors.
    pub(crate) fn evaluate(&self, expression: &str) -> Evaluated {
        self.evaluate_in(&self.variables(), expression)
    }

    pub(crate) fn evaluate_in(&self, scope: &dyn Scope, expression: &str) -> Evaluated {
        let expr = parse(expression)?;
        self.with(|environment| Evaluator::new(environment, scope).evaluate(&expr))
    }

    /// Evaluates with one more function.
    pub(crate) fn evaluate_with(
        &self,
        expression: &str,
        name: &'static str,
        body: Extension<'static>,
    ) -> Evaluated {
        let expr = parse(expression)?;
        self.with(|environment| {
            environment.add_function(name, body);
            Evaluator::new(environment, &self.variables()).evaluate(&expr)
        })
    }

    /// Evaluates an expression in which every name stands for the expression itself.
    pub(crate) fn evaluate_recursive(&self, expression: &str) -> Evaluated {
        let expr = parse(expression)?;
        self.with(|environment| {
            let scope = Recursive { environment, expr: &expr };
            Evaluator::new(environment, &scope).evaluate(&expr)
        })
    }

    /// The value as a console prints it, on one line; `error` if it has none.
    pub(crate) fn print(&self, expression: &str) -> String {
        shown(self.evaluate(expression).ok())
    }

    /// The value of a variable of this type, printed likewise.
    pub(crate) fn print_as(&self, constraint: &str, given: &str) -> String {
        let constraint = parse(constraint)
            .and_then(|expr| self.with(|environment| parse_constraint(&expr, environment)));
        let value = self.evaluate(given).expect("what is given is a value");
        shown(constraint.ok().and_then(|constraint| constraint.apply(&value).ok()))
    }
}

struct Recursive<'a> {
    environment: &'a Environment<'a>,
    expr: &'a Expr,
}

impl Scope for Recursive<'_> {
    fn resolve(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        let value = Evaluator::new(self.environment, self).evaluate(self.expr)?;
        Ok(Resolved { value, steps: reference.steps.len() })
    }

    fn attribute(&self, component: &Component, _: &Ident) -> Evaluated {
        Ok(Value::component(component.clone()))
    }
}

fn shown(value: Option<Value>) -> String {
    value.map_or("error".into(), |value| value.to_string().replace('\n', "␤"))
}

fn parse(expression: &str) -> Evaluated<Expr> {
    let mut sources = Sources::default();
    let file = sources.add("expression", expression);
    let mut diagnostics = Diagnostics::new();
    let expr = parse_expr(file, expression, &mut diagnostics);
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok(expr) }
}
