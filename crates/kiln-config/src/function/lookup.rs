//! Functions that look something up in a collection, or ask something of it.

use unicode_segmentation::UnicodeSegmentation;

use super::args::{text_of, wrong};
use super::{Args, Failure, Function, Param, Shape};
use crate::value::convert::{convert, unify};
use crate::value::{Data, Type, Value};

const LIST: Param = Param::new("list", Shape::Any);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("alltrue", &[Param::new("list", Shape::Bools)], Shape::Bool, |args| {
        Ok(args.elements(0)?.iter().all(|value| value.as_bool() == Some(true)).into())
    }),
    Function::new("anytrue", &[Param::new("list", Shape::Bools)], Shape::Bool, |args| {
        Ok(args.elements(0)?.iter().any(|value| value.as_bool() == Some(true)).into())
    }),
    Function::new("coalesce", &[], Shape::Any, coalesce)
        .variadic(Param::new("vals", Shape::Any).nullable())
        .raw(),
    Function::new("coalescelist", &[], Shape::Any, coalescelist)
        .variadic(Param::new("vals", Shape::Any))
        .structure(),
    Function::new("contains", &[LIST, Param::new("value", Shape::Any)], Shape::Bool, |args| {
        Ok(position(args.elements(0)?, args)?.is_some().into())
    }),
    Function::new("element", &[LIST, Param::new("index", Shape::Number)], Shape::Any, element)
        .structure(),
    Function::new("index", &[LIST, Param::new("value", Shape::Any)], Shape::Number, |args| {
        let found = position(args.sequence(0)?, args)?;
        found.map(Value::from).ok_or_else(|| Failure::of(1, "the list has no such element"))
    }),
    Function::new("keys", &[Param::new("inputMap", Shape::Any)], Shape::Any, keys).structure(),
    Function::new("length", &[Param::new("value", Shape::Any)], Shape::Number, length).structure(),
    Function::new(
        "lookup",
        &[
            Param::new("inputMap", Shape::Any),
            Param::new("key", Shape::String),
            Param::new("default", Shape::Any).nullable(),
        ],
        Shape::Any,
        lookup,
    )
    .optional(1)
    .structure(),
    Function::new("one", &[LIST], Shape::Any, |args| match args.elements(0)? {
        [] => Ok(Value::null()),
        [only] => Ok(only.clone()),
        more => Err(Failure::of(0, format!("at most one element is allowed, not {}", more.len()))),
    })
    .structure(),
    Function::new("values", &[Param::new("mapping", Shape::Any)], Shape::Any, values).structure(),
];

/// The first that is neither null nor empty text, brought to the type that all have in common.
fn coalesce(args: &Args<'_>) -> Result<Value, Failure> {
    let (_, values) = unify(args.all().to_vec())
        .map_err(|error| Failure::new(error.to_string().replace("elements", "arguments")))?;
    let mut sensitive = false;
    for value in values {
        sensitive |= value.is_sensitive();
        if !value.is_null() && value.as_str() != Some("") {
            // One that is unknown may turn out to be the one.
            return Ok(value.with_sensitive(sensitive));
        }
    }
    Err(Failure::new("no argument is anything but null or empty text"))
}

fn coalescelist(args: &Args<'_>) -> Result<Value, Failure> {
    let mut found = None;
    for (index, value) in args.all().iter().enumerate() {
        if !args.sequence(index)?.is_empty() {
            found = found.or(Some(value));
        }
    }
    found.cloned().ok_or_else(|| Failure::new("no argument is a list with elements"))
}

fn position(elements: &[Value], args: &Args<'_>) -> Result<Option<usize>, Failure> {
    let wanted = args.value(1)?;
    for (index, element) in elements.iter().enumerate() {
        if element.equals(wanted).map_err(|secret| Failure::secret(0, &secret))? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Positions beyond either end wrap around.
fn element(args: &Args<'_>) -> Result<Value, Failure> {
    let elements = args.sequence(0)?;
    if elements.is_empty() {
        return Err(Failure::of(0, "an empty list has no elements"));
    }
    let length = i64::try_from(elements.len()).unwrap_or(i64::MAX);
    let position = args.whole(1)?.rem_euclid(length);
    let found = usize::try_from(position).ok().and_then(|position| elements.get(position));
    found.cloned().ok_or_else(|| Failure::of(1, "no such element"))
}

fn keys(args: &Args<'_>) -> Result<Value, Failure> {
    let keys = args.entries(0)?.keys().map(|key| key.clone().into()).collect();
    Ok(match args.value(0)?.data() {
        Data::Map(..) => Value::list(Type::String, keys),
        _ => Value::tuple(keys),
    })
}

fn values(args: &Args<'_>) -> Result<Value, Failure> {
    let values = args.entries(0)?.values().cloned().collect();
    Ok(match args.value(0)?.data() {
        Data::Map(element, _) => Value::list(element.clone(), values),
        _ => Value::tuple(values),
    })
}

fn length(args: &Args<'_>) -> Result<Value, Failure> {
    let value = args.value(0)?;
    Ok(match value.data() {
        Data::String(_) | Data::Secret(_) => text_of(value, 0)?.graphemes(true).count(),
        Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements) => elements.len(),
        Data::Map(_, entries) | Data::Object(entries) => entries.len(),
        _ => return Err(wrong(0, "a string or a collection", value)),
    }
    .into())
}

fn lookup(args: &Args<'_>) -> Result<Value, Failure> {
    let (entries, key) = (args.entries(0)?, args.text(1)?);
    // In a map the default has to fit the other elements, even where it is not needed.
    let default = match (args.get(2), args.value(0)?.data()) {
        (Some(default), Data::Map(element, _)) => {
            Some(convert(default, element).map_err(|error| Failure::of(2, error.to_string()))?)
        }
        (default, _) => default.cloned(),
    };
    entries.get(key).cloned().or(default).ok_or_else(|| {
        Failure::of(1, format!("there is no element with the key \"{key}\""))
            .with_help("give a default as the third argument")
    })
}
