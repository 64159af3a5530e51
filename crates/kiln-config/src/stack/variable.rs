//! Variables: what is given for them, by which precedence, and what they may be.

use std::collections::BTreeMap;

use kiln_model::name::is_label;

use super::files::read_text;
use super::schema::{VALIDATION, attribute};
use super::scope::Site;
use super::world::World;
use super::{Inputs, VARIABLE_PREFIX};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::eval::constraint::parse_constraint;
use crate::eval::{Environment, Evaluated, Evaluator, Variables};
use crate::syntax::ast::{Attribute, Block, Expr, ExprKind, Name};
use crate::syntax::span::{Sources, Span};
use crate::syntax::{parse_body, parse_expr};
use crate::value::constraint::Constraint;
use crate::value::{Type, Value};

/// What is given for a variable.
#[derive(Clone, Debug)]
pub(super) struct Given {
    span: Span,
    value: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// Text of an option or the environment: how it is read depends on the variable's type.
    Text(String),
    /// An expression of a file.
    Expr(Expr),
}

/// What is given, by name; of several the strongest.
pub(super) type AllGiven = BTreeMap<Name, Given>;

/// Collects what is given for the variables of these names. Of weakest to strongest: the
/// environment, `kiln.kilnvars`, `*.auto.kilnvars`, files of `--var-file`, `--var`.
pub(super) fn collect(
    declared: &BTreeMap<Name, Block>,
    automatic: &[std::path::PathBuf],
    inputs: &Inputs,
    sources: &mut Sources,
    diagnostics: &mut Diagnostics,
) -> AllGiven {
    let mut given = AllGiven::new();
    for name in declared.keys() {
        let variable = format!("{VARIABLE_PREFIX}{name}");
        if let Some(text) = inputs.env.get(&variable).filter(|text| !text.is_empty()) {
            let value = text_source(&variable, text, sources);
            given.insert(name.clone(), value);
        }
    }
    let asked = inputs.var_files.iter().map(|path| inputs.directory_of_caller.join(path));
    for path in automatic.iter().cloned().chain(asked) {
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) => {
                diagnostics.push(error);
                continue;
            }
        };
        let file = sources.add(&path, text.as_str());
        let body = parse_body(file, &text, diagnostics);
        for block in &body.blocks {
            let summary = "a file of variables holds no blocks";
            diagnostics.push(Diagnostic::error(block.span, summary));
        }
        for Attribute { name, expr } in body.attributes {
            if declared.contains_key(&name.name) {
                given.insert(name.name, Given { span: expr.span, value: Source::Expr(expr) });
            } else {
                let summary = format!("there is no variable `{}`", name.name);
                let warning =
                    Diagnostic::warning(name.span, summary).with_label("this value is for nothing");
                diagnostics.push(suggest(warning, &name.name, declared));
            }
        }
    }
    for option in &inputs.vars {
        if let Some((name, value)) = option_value(option, declared, sources, diagnostics) {
            given.insert(name, value);
        }
    }
    given
}

fn text_source(what: &str, text: &str, sources: &mut Sources) -> Given {
    let file = sources.add(what, text);
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    Given { span: Span::new(file, 0, end), value: Source::Text(text.to_owned()) }
}

/// `name=value` of an option.
fn option_value(
    option: &str,
    declared: &BTreeMap<Name, Block>,
    sources: &mut Sources,
    diagnostics: &mut Diagnostics,
) -> Option<(Name, Given)> {
    let Some((name, text)) = option.split_once('=') else {
        let summary = format!("--var {option:?} has no value");
        let help = "write --var name=value";
        diagnostics.push(Diagnostic::error_without_place(summary).with_help(help));
        return None;
    };
    let name = name.trim();
    let Some((declared_name, _)) = declared.get_key_value(name) else {
        let summary = format!("there is no variable `{name}`, which --var sets");
        let error = Diagnostic::error_without_place(summary);
        diagnostics.push(suggest(error, name, declared));
        return None;
    };
    Some((declared_name.clone(), text_source(&format!("--var {name}"), text, sources)))
}

fn suggest(diagnostic: Diagnostic, name: &str, declared: &BTreeMap<Name, Block>) -> Diagnostic {
    match nearest(name, declared.keys().map(|name| &**name)) {
        Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
        None if is_label(name) => {
            diagnostic.with_help(format!("declare it: variable \"{name}\" {{}}"))
        }
        None => diagnostic,
    }
}

/// The values of all variables; `None` where a value is wrong, which is reported.
pub(super) fn evaluate(
    declared: &BTreeMap<Name, Block>,
    given: &AllGiven,
    environment: &Environment<'_>,
    diagnostics: &mut Diagnostics,
) -> BTreeMap<Name, Option<Value>> {
    let value = |(name, block): (&Name, &Block)| {
        let variable = Variable { name, block, environment };
        let value = variable.value(given.get(name), diagnostics);
        let value = value.map_err(|errors| diagnostics.extend(errors)).ok();
        (name.clone(), value)
    };
    declared.iter().map(value).collect()
}

struct Variable<'v> {
    name: &'v Name,
    block: &'v Block,
    environment: &'v Environment<'v>,
}

impl Variable<'_> {
    fn value(&self, given: Option<&Given>, diagnostics: &mut Diagnostics) -> Evaluated {
        let constraint = match self.expr("type") {
            Some(expr) => Some(parse_constraint(expr, self.environment)?),
            None => None,
        };
        let sensitive = self.flag("sensitive", false)?;
        let nullable = self.flag("nullable", true)?;
        self.check_description(diagnostics);
        let default = match self.expr("default") {
            Some(expr) => Some(self.fit(&self.constant(expr)?, constraint.as_ref(), expr.span)?),
            None => None,
        };
        let found = match given {
            Some(given) => {
                let value = self.read(given, constraint.as_ref(), diagnostics)?;
                Some(self.fit(&value, constraint.as_ref(), given.span)?)
            }
            None => None,
        };
        let found = found.filter(|value| nullable || !value.is_null());
        let Some(value) = found.or(default) else { return Err(self.missing(given).into()) };
        if value.is_null() && !nullable {
            let span = self.expr("default").map_or(self.block.span, |expr| expr.span);
            let summary = format!("variable `{}` must not be null", self.name);
            return Err(Diagnostic::error(span, summary).into());
        }
        Ok(value.with_sensitive(sensitive))
    }

    fn expr(&self, name: &str) -> Option<&Expr> {
        attribute(&self.block.body, name).map(|attribute| &attribute.expr)
    }

    /// The value of an expression without references.
    fn constant(&self, expr: &Expr) -> Evaluated {
        if matches!(expr.kind, ExprKind::Error) {
            return Err(Diagnostics::new());
        }
        let nothing = BTreeMap::new();
        Evaluator::new(self.environment, &Variables(&nothing)).evaluate(expr)
    }

    fn flag(&self, name: &str, default: bool) -> Evaluated<bool> {
        let Some(expr) = self.expr(name) else { return Ok(default) };
        self.constant(expr)?.as_bool().ok_or_else(|| {
            Diagnostic::error(expr.span, format!("`{name}` must be true or false")).into()
        })
    }

    fn check_description(&self, diagnostics: &mut Diagnostics) {
        let Some(expr) = self.expr("description") else { return };
        match self.constant(expr) {
            Ok(value) if value.as_str().is_some() => {}
            Ok(_) => {
                diagnostics.push(Diagnostic::error(expr.span, "`description` must be a string"));
            }
            Err(errors) => diagnostics.extend(errors),
        }
    }

    /// Text stands for itself where the variable is text, a number or a bool, or has no type;
    /// else it is an expression.
    fn read(
        &self,
        given: &Given,
        constraint: Option<&Constraint>,
        diagnostics: &mut Diagnostics,
    ) -> Evaluated {
        let text = match &given.value {
            Source::Expr(expr) => return self.constant(expr),
            Source::Text(text) => text,
        };
        let primitive = match constraint {
            None => true,
            Some(Constraint::Plain(ty)) => ty.is_primitive(),
            Some(_) => false,
        };
        if primitive {
            return Ok(Value::from(text.as_str()));
        }
        let mut errors = Diagnostics::new();
        let expr = parse_expr(given.span.file, text, &mut errors);
        if errors.has_errors() {
            diagnostics.extend(errors);
            return Err(Diagnostics::new());
        }
        self.constant(&expr)
    }

    fn fit(&self, value: &Value, constraint: Option<&Constraint>, span: Span) -> Evaluated {
        let Some(constraint) = constraint else { return Ok(value.clone()) };
        constraint.apply(value).map_err(|error| {
            let summary = format!("the value of variable `{}` does not fit its type", self.name);
            let ty = self.expr("type").map_or(self.block.span, |expr| expr.span);
            let diagnostic = Diagnostic::error(span, summary)
                .with_label(error.to_string())
                .with_related(ty, format!("its type is {}", describe(constraint)));
            match error.help {
                Some(help) => diagnostic.with_help(help),
                None => diagnostic,
            }
            .into()
        })
    }

    fn missing(&self, given: Option<&Given>) -> Diagnostic {
        let name = self.name;
        let span = given.map_or(self.block.span, |given| given.span);
        Diagnostic::error(span, format!("variable `{name}` has no value"))
            .with_label("it has no default, and nothing is given for it")
            .with_help(format!(
                "give it with --var {name}=…, in kiln.kilnvars, or as {VARIABLE_PREFIX}{name}"
            ))
    }
}

fn describe(constraint: &Constraint) -> String {
    match constraint.ty() {
        Type::Any => "any".into(),
        ty => ty.to_string(),
    }
}

/// Checks the `validation` blocks of all variables, which may refer to anything.
pub(super) fn validate(world: &World<'_>, given: &AllGiven) {
    for (name, block) in &world.program.variables {
        let known = world.variables.get().and_then(|values| values.get(name));
        if !matches!(known, Some(Some(_))) {
            continue;
        }
        for validation in &block.body.blocks {
            if &*validation.kind.name == "validation" {
                let place = given.get(name).map_or(block.span, |given| given.span);
                check(world, name, validation, place);
            }
        }
    }
}

fn check(world: &World<'_>, name: &Name, validation: &Block, place: Span) {
    let header = validation.span;
    VALIDATION.check(header, &validation.body, false, &mut world.sink.borrow_mut());
    let condition = attribute(&validation.body, "condition");
    let message = attribute(&validation.body, "error_message");
    let (Some(condition), Some(message)) = (condition, message) else { return };
    let site = Site::of_stack(world);
    let Some(holds) = world.evaluate(&condition.expr, &site) else { return };
    let Some(text) = world.evaluate(&message.expr, &site) else { return };
    match (holds.as_bool(), text.as_str()) {
        (Some(true), _) => {}
        (Some(false), _) if text.contains_sensitive() => {
            let summary = format!("the value of variable `{name}` is not valid");
            world.report(
                Diagnostic::error(place, summary)
                    .with_label("its message is sensitive and not shown")
                    .with_related(condition.expr.span, "this condition does not hold"),
            );
        }
        (Some(false), Some(text)) => world.report(
            Diagnostic::error(place, format!("the value of variable `{name}` is not valid"))
                .with_label(text)
                .with_related(condition.expr.span, "this condition does not hold"),
        ),
        (None, _) => world.report(Diagnostic::error(
            condition.expr.span,
            format!("`condition` must be true or false, found {}", holds.describe()),
        )),
        (_, None) => world.report(Diagnostic::error(
            message.expr.span,
            format!("`error_message` must be a string, found {}", text.describe()),
        )),
    }
}
