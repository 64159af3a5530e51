//! Calls of functions, among them those that evaluate their arguments themselves: `try`, `can`
//! and `templatefile`.

use std::sync::Arc;

use super::{Evaluated, Evaluator, Reference, Resolved, Scope, Variables, error, help, suggest};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::function::{Failure, Function, why_absent};
use crate::syntax::ast::{Call, Expr, Ident};
use crate::syntax::span::Span;
use crate::value::convert::convert;
use crate::value::{Component, Data, Reason, Type, Value};

/// Functions that are no rows of the table.
const LAZY: [&str; 3] = ["can", "templatefile", "try"];

/// The names in a template file: the variables that were handed in. Components among them keep
/// their attributes.
struct TemplateScope<'a> {
    variables: Variables<'a>,
    outer: &'a dyn Scope,
}

impl Scope for TemplateScope<'_> {
    fn resolve(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        self.variables.resolve(reference)
    }

    fn attribute(&self, component: &Component, name: &Ident) -> Evaluated {
        self.outer.attribute(component, name)
    }
}

/// The arguments of a call, spread out; or why they are not known.
struct Arguments {
    values: Vec<Value>,
    unknown: Option<Reason>,
    sensitive: bool,
}

impl Evaluator<'_> {
    pub(super) fn call(&self, call: &Call, span: Span) -> Evaluated {
        let name = &*call.name.name;
        match name {
            "try" => return self.call_try(call, span),
            "can" => return self.call_can(call, span),
            _ => {}
        }
        let extension = self.environment.extensions.get(name);
        let function = Function::find(name);
        if extension.is_none() && function.is_none() && name != "templatefile" {
            return Err(self.no_such_function(call).into());
        }
        let Arguments { values, unknown, sensitive } = self.arguments(call)?;
        if let Some(reason) = unknown {
            return Ok(Value::unknown(Type::Any, reason).with_sensitive(sensitive));
        }
        let result = match (extension, function) {
            (Some(extension), _) => extension(&values),
            (None, Some(function)) => function.call(values, self.environment.files),
            (None, None) => return self.call_templatefile(call, &values, span),
        };
        result.map_err(|failure| blame(call, span, failure).into())
    }

    fn arguments(&self, call: &Call) -> Evaluated<Arguments> {
        let mut values = self.all(&call.args)?;
        let mut arguments = Arguments { values: Vec::new(), unknown: None, sensitive: false };
        if call.expand_last
            && let (Some(last), Some(expr)) = (values.pop(), call.args.last())
        {
            arguments.sensitive = last.is_sensitive();
            match (last.as_elements(), last.unknown_reason()) {
                (Some(elements), _) => {
                    let marked = |value: &Value| value.clone().with_sensitive(last.is_sensitive());
                    values.extend(elements.iter().map(marked));
                }
                (None, Some(reason)) => arguments.unknown = Some(reason.clone()),
                (None, None) => {
                    let message = format!("... needs a list, not {}", last.describe());
                    return error(expr.span, message);
                }
            }
        }
        arguments.values = values;
        Ok(arguments)
    }

    fn no_such_function(&self, call: &Call) -> Diagnostic {
        let name = &*call.name.name;
        if let Some((reason, way_out)) = why_absent(name) {
            let summary = format!("the function \"{name}\" is not available: {reason}");
            return Diagnostic::error(call.name.span, summary).with_help(way_out);
        }
        let unknown =
            Diagnostic::error(call.name.span, format!("there is no function named \"{name}\""));
        let mut names: Vec<&str> = Function::names().chain(LAZY).collect();
        names.extend(self.environment.extensions.keys());
        names.sort_unstable();
        suggest(unknown, name, names)
    }

    /// The first argument that evaluates.
    fn call_try(&self, call: &Call, span: Span) -> Evaluated {
        let mut failed = Diagnostics::new();
        for expr in &call.args {
            match self.evaluate(expr) {
                Ok(value) => return Ok(value),
                Err(errors) => failed.extend(errors),
            }
        }
        if call.args.is_empty() {
            return error(span, "function \"try\": at least one argument is needed");
        }
        if failed.is_empty() {
            // What failed has been reported where it stands.
            return Err(failed);
        }
        let mut none = Diagnostic::error(span, "function \"try\": no argument could be evaluated");
        for diagnostic in failed {
            if let Some(place) = diagnostic.span {
                none = none.with_related(place, diagnostic.summary);
            }
        }
        Err(none.into())
    }

    fn call_can(&self, call: &Call, span: Span) -> Evaluated {
        match &*call.args {
            [expr] => Ok(self.evaluate(expr).is_ok().into()),
            args => {
                let message = format!("function \"can\": it takes 1 argument, not {}", args.len());
                error(span, message)
            }
        }
    }

    /// `templatefile(path, variables)`.
    fn call_templatefile(&self, call: &Call, values: &[Value], span: Span) -> Evaluated {
        let [path, variables] = values else {
            let (given, failure) = (values.len(), "it takes 2 arguments: a path and variables");
            return Err(blame(call, span, Failure::new(format!("{failure}, not {given}"))).into());
        };
        if self.in_template_file {
            let failure = Failure::new("a template file cannot use another one");
            return Err(blame(call, span, failure).into());
        }
        let sensitive = path.is_sensitive() || variables.is_sensitive();
        if let Some(reason) = path.unknown_reason().or_else(|| variables.unknown_reason()) {
            return Ok(Value::unknown(Type::String, reason.clone()).with_sensitive(sensitive));
        }
        let Some(entries) = variables.as_entries() else {
            let message = format!("the variables are an object, not {}", variables.describe());
            return Err(blame(call, span, Failure::of(1, message)).into());
        };
        let template = self.template_file(call, path, span)?;
        let scope = TemplateScope { variables: Variables(entries), outer: self.scope };
        let inner = Evaluator {
            scope: &scope,
            locals: None,
            splat_item: None,
            in_template_file: true,
            ..*self
        };
        let result = inner.evaluate(&template).map_err(|errors| {
            let mut placed = Diagnostics::new();
            let from_here =
                |error: Diagnostic| error.with_related(span, "the template is used here");
            placed.extend(errors.into_iter().map(from_here));
            placed
        })?;
        if result.is_null() {
            return Err(blame(call, span, Failure::of(0, "the template yields null")).into());
        }
        Ok(result.with_sensitive(sensitive))
    }

    /// Reads and parses a template; each file once.
    fn template_file(&self, call: &Call, path: &Value, span: Span) -> Evaluated<Arc<Expr>> {
        let path = match convert(path, &Type::String) {
            Ok(path) => path,
            Err(failure) => {
                let failure = Failure::of(0, format!("the path: {failure}"));
                return Err(blame(call, span, failure).into());
            }
        };
        let Data::String(path) = path.data() else {
            let failure = Failure::of(0, "the path must be text without a secret");
            return Err(blame(call, span, failure).into());
        };
        if let Some(parsed) = self.environment.templates.borrow().get(&**path) {
            return Ok(Arc::clone(parsed));
        }
        let read = Function::find("file")
            .map(|file| file.call(vec![path.clone().into()], self.environment.files));
        let text = match read {
            Some(Ok(text)) => text,
            Some(Err(failure)) => return Err(blame(call, span, failure).into()),
            None => return error(span, "function \"templatefile\": files cannot be read"),
        };
        let text = text.as_str().unwrap_or_default().to_owned();
        let parsed = (self.environment.parse_template)(path, text)
            .map_err(|errors| help(errors, "it is read as a template by templatefile"))?;
        let parsed = Arc::new(parsed);
        self.environment.templates.borrow_mut().insert(path.to_string(), Arc::clone(&parsed));
        Ok(parsed)
    }
}

/// The failure of a call at the place of the argument that is to blame.
fn blame(call: &Call, span: Span, failure: Failure) -> Diagnostic {
    let place =
        |index: usize| call.args.get(index).or(call.args.last()).map(|expr: &Expr| expr.span);
    let span = failure.argument.and_then(place).unwrap_or(span);
    let summary = format!("function \"{}\": {}", call.name.name, failure.message);
    failure.help.into_iter().fold(Diagnostic::error(span, summary), Diagnostic::with_help)
}
