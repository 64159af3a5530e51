//! Functions on types and marks.

use super::{Args, Failure, Function, Param, Shape};
use crate::value::convert::convert;
use crate::value::{Type, Value};

const VALUE: Param = Param::new("v", Shape::Any).nullable();

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("tobool", &[VALUE], Shape::Bool, |args| to(args, &Type::Bool)).raw(),
    Function::new("tolist", &[VALUE], Shape::List, |args| to(args, &Type::list(Type::Any))).raw(),
    Function::new("tomap", &[VALUE], Shape::Map, |args| to(args, &Type::map(Type::Any))).raw(),
    Function::new("tonumber", &[VALUE], Shape::Number, |args| to(args, &Type::Number)).raw(),
    Function::new("toset", &[VALUE], Shape::Set, |args| to(args, &Type::set(Type::Any))).raw(),
    Function::new("tostring", &[VALUE], Shape::String, |args| to(args, &Type::String)).raw(),
    Function::new("type", &[VALUE], Shape::String, |args| {
        Ok(Value::from(outline(&args.value(0)?.ty(), 0)))
    })
    .raw(),
    Function::new("sensitive", &[VALUE], Shape::Any, |args| {
        Ok(args.value(0)?.clone().with_sensitive(true))
    })
    .raw(),
    Function::new("nonsensitive", &[VALUE], Shape::Any, |args| {
        let value = args.value(0)?;
        let secret = value.first_secret().map(|secret| Failure::secret(0, secret));
        value
            .clone()
            .without_sensitive()
            .ok_or_else(|| secret.unwrap_or_else(|| Failure::of(0, "it contains a secret")))
    })
    .raw(),
    Function::new("issensitive", &[VALUE], Shape::Bool, |args| {
        Ok(args.value(0)?.is_sensitive().into())
    })
    .raw(),
];

fn to(args: &Args<'_>, ty: &Type) -> Result<Value, Failure> {
    let value = args.value(0)?;
    convert(value, ty).map_err(|error| {
        let failure = Failure::of(0, describe(value, ty).unwrap_or_else(|| error.to_string()));
        error.help.into_iter().fold(failure, Failure::with_help)
    })
}

/// Text that does not spell what is wanted is quoted, unless it must not be shown.
fn describe(value: &Value, ty: &Type) -> Option<String> {
    let text = value.as_str().filter(|text| !value.is_sensitive() && text.len() <= 40)?;
    let wanted = match ty {
        Type::Bool => "a bool: only \"true\" and \"false\" are",
        Type::Number => "a number",
        _ => return None,
    };
    Some(format!("{text:?} does not spell {wanted}"))
}

/// A type over several lines, as Terraform's `type` gives it.
fn outline(ty: &Type, indent: usize) -> String {
    let inner = indent + 4;
    let wrap = |name: &str, element: &Type| match element {
        Type::Tuple(_) | Type::Object(_) if !is_empty(element) => {
            format!("{name}(\n{:inner$}{},\n{:indent$})", "", outline(element, inner), "")
        }
        _ => format!("{name}({})", outline(element, indent)),
    };
    match ty {
        Type::List(element) => wrap("list", element),
        Type::Set(element) => wrap("set", element),
        Type::Map(element) => wrap("map", element),
        Type::Any => "dynamic".into(),
        Type::Tuple(_) if is_empty(ty) => "tuple([])".into(),
        Type::Object(_) if is_empty(ty) => "object({})".into(),
        Type::Tuple(elements) => {
            let lines = elements.iter().map(|element| outline(element, inner));
            format!("tuple([\n{}{:indent$}])", block(lines, inner), "")
        }
        Type::Object(attributes) => {
            let lines = attributes.iter().map(|(key, ty)| format!("{key}: {}", outline(ty, inner)));
            format!("object({{\n{}{:indent$}}})", block(lines, inner), "")
        }
        plain => plain.to_string(),
    }
}

fn block(lines: impl Iterator<Item = String>, indent: usize) -> String {
    let indented: Vec<String> = lines.map(|line| format!("{:indent$}{line},\n", "")).collect();
    indented.concat()
}

fn is_empty(ty: &Type) -> bool {
    match ty {
        Type::Tuple(elements) => elements.is_empty(),
        Type::Object(attributes) => attributes.is_empty(),
        _ => false,
    }
}
