//! An environment for expressions that stand alone: a directory of their own and no variables.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kiln_config::diagnostic::Diagnostics;
use kiln_config::eval::{Environment, Evaluated, Evaluator, Variables};
use kiln_config::function::Directory;
use kiln_config::syntax::span::Sources;
use kiln_config::syntax::{parse_expr, parse_template};
use kiln_config::value::{Key, Value};

/// A directory and what the names in expressions stand for.
pub(crate) struct Stack {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) variables: BTreeMap<Key, Value>,
}

impl Stack {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, variables: BTreeMap::new() }
    }

    /// Gives the evaluator of an expression to `body`.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&Evaluator<'_>) -> T) -> T {
        let files = Directory::open(self.directory.path()).expect("the directory opens");
        let sources = RefCell::new(Sources::default());
        let parse = |path: &str, text: String| {
            let file = sources.borrow_mut().add(path, text.as_str());
            let mut diagnostics = Diagnostics::new();
            let expr = parse_template(file, &text, &mut diagnostics);
            if diagnostics.has_errors() { Err(diagnostics) } else { Ok(expr) }
        };
        let environment = Environment::new(&files, Box::new(parse));
        let scope = Variables(&self.variables);
        body(&Evaluator::new(&environment, &scope))
    }

    /// The value of an expression, or all errors.
    pub(crate) fn evaluate(&self, expression: &str) -> Evaluated {
        let mut sources = Sources::default();
        let file = sources.add("expression", expression);
        let mut diagnostics = Diagnostics::new();
        let expr = parse_expr(file, expression, &mut diagnostics);
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        self.with(|evaluator| evaluator.evaluate(&expr))
    }

    /// The value as a console prints it, on one line; `error` if it has none.
    pub(crate) fn print(&self, expression: &str) -> String {
        match self.evaluate(expression) {
            Ok(value) => value.to_string().replace('\n', "␤"),
            Err(_) => "error".into(),
        }
    }
}
