//! Type constraints as they are written: `list(object({ a = optional(string, "x") }))`.

use std::collections::BTreeMap;

use super::{Environment, Evaluated, Evaluator, Variables, error, help, suggest};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::syntax::ast::{Call, Expr, ExprKind, ObjectItem};
use crate::syntax::span::Span;
use crate::value::constraint::{Constraint, Field};
use crate::value::{Key, Type};

/// The words and constructors of which a type is made.
const NAMES: [&str; 10] =
    ["any", "bool", "number", "string", "list", "set", "map", "tuple", "object", "component"];

/// The type constraint that an expression spells.
///
/// # Errors
/// What is no type, and defaults that do not fit theirs.
pub fn parse_constraint(expr: &Expr, environment: &Environment<'_>) -> Evaluated<Constraint> {
    let none = BTreeMap::new();
    let scope = Variables(&none);
    Reader { evaluator: Evaluator::new(environment, &scope) }.constraint(expr)
}

struct Reader<'a> {
    evaluator: Evaluator<'a>,
}

impl Reader<'_> {
    fn constraint(&self, expr: &Expr) -> Evaluated<Constraint> {
        match &expr.kind {
            // Already reported by the parser.
            ExprKind::Error => Err(Diagnostics::new()),
            ExprKind::Variable(name) => word(name, expr.span),
            // The quoted words of old configurations mean the same.
            ExprKind::String(name) if name.len() <= 6 => word(name, expr.span),
            ExprKind::Call(call) => self.constructor(call, expr.span),
            _ => error(expr.span, "a type is required")
                .map_err(|errors| help(errors, "write one like string or list(number)")),
        }
    }

    fn constructor(&self, call: &Call, span: Span) -> Evaluated<Constraint> {
        let name = &*call.name.name;
        let [argument] = &*call.args else {
            if name == "optional" {
                return misplaced_optional(span);
            }
            return error(span, format!("the type {name} takes 1 argument"));
        };
        Ok(match name {
            "list" => collection(self.constraint(argument)?, Type::list, Constraint::List),
            "set" => collection(self.constraint(argument)?, Type::set, Constraint::Set),
            "map" => collection(self.constraint(argument)?, Type::map, Constraint::Map),
            "tuple" => match &argument.kind {
                ExprKind::Tuple(elements) => {
                    let elements = elements.iter().map(|element| self.constraint(element));
                    Constraint::Tuple(elements.collect::<Evaluated<_>>()?)
                }
                _ => return error(argument.span, "the types of the elements stand in brackets"),
            },
            "object" => match &argument.kind {
                ExprKind::Object(items) => self.object(items)?,
                _ => return error(argument.span, "the types of the attributes stand in braces"),
            },
            "optional" => return misplaced_optional(span),
            _ => return no_such_type(name, call.name.span),
        })
    }

    fn object(&self, items: &[ObjectItem]) -> Evaluated<Constraint> {
        let mut fields = BTreeMap::new();
        let mut errors: Option<Diagnostics> = None;
        for item in items {
            let field = match &item.key.kind {
                ExprKind::String(name) => {
                    self.field(&item.value).map(|field| (Key::clone(name), field))
                }
                _ => error(item.key.span, "the name of an attribute is required"),
            };
            match field {
                Ok((name, field)) => {
                    fields.insert(name, field);
                }
                Err(found) => errors.get_or_insert_default().extend(found),
            }
        }
        errors.map_or(Ok(Constraint::Object(fields)), Err)
    }

    /// A type, or `optional(type)`, or `optional(type, default)`.
    fn field(&self, expr: &Expr) -> Evaluated<Field> {
        let call = match &expr.kind {
            ExprKind::Call(call) if &*call.name.name == "optional" => call,
            _ => {
                let constraint = self.constraint(expr)?;
                return Ok(Field { constraint, optional: false, default: None });
            }
        };
        let (ty, default) = match &*call.args {
            [ty] => (ty, None),
            [ty, default] => (ty, Some(default)),
            _ => return error(expr.span, "optional takes a type and perhaps a default"),
        };
        let constraint = self.constraint(ty)?;
        let default = match default {
            None => None,
            Some(default) => {
                let value = self.evaluator.evaluate(default)?;
                // It is kept as given, so that defaults inside it are filled in when it is used.
                if let Err(failure) = constraint.apply(&value) {
                    return error(default.span, format!("the default does not fit: {failure}"));
                }
                Some(value)
            }
        };
        Ok(Field { constraint, optional: true, default })
    }
}

/// A collection of what has no optional attributes is a plain type.
fn collection(
    element: Constraint,
    plain: fn(Type) -> Type,
    nested: fn(Box<Constraint>) -> Constraint,
) -> Constraint {
    match element {
        Constraint::Plain(ty) => Constraint::Plain(plain(ty)),
        element => nested(Box::new(element)),
    }
}

fn word(name: &str, span: Span) -> Evaluated<Constraint> {
    Ok(Constraint::Plain(match name {
        "any" => Type::Any,
        "bool" => Type::Bool,
        "number" => Type::Number,
        "string" => Type::String,
        "component" => Type::Component,
        // As in Terraform, a bare collection is one of anything.
        "list" => Type::list(Type::Any),
        "set" => Type::set(Type::Any),
        "map" => Type::map(Type::Any),
        "tuple" | "object" => {
            return error(span, format!("the type {name} needs to know what is in it")).map_err(
                |errors| help(errors, "write object({ name = string }) or tuple([string])"),
            );
        }
        _ => return no_such_type(name, span),
    }))
}

fn no_such_type(name: &str, span: Span) -> Evaluated<Constraint> {
    let unknown = Diagnostic::error(span, format!("there is no type named \"{name}\""));
    Err(suggest(unknown, name, NAMES).into())
}

fn misplaced_optional(span: Span) -> Evaluated<Constraint> {
    error(span, "only the attributes of an object can be optional")
}
