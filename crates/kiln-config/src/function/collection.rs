//! Functions that make one collection of others.

use std::collections::BTreeMap;

use super::args::{text_of, wrong};
use super::set::distinct;
use super::{Args, Failure, Function, Param, Shape};
use crate::value::{Data, Key, Number, Type, Value};

const LIST: Param = Param::new("list", Shape::Any);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "chunklist",
        &[Param::new("list", Shape::List), Param::new("size", Shape::Number)],
        Shape::List,
        chunklist,
    )
    .structure(),
    Function::new("compact", &[Param::new("list", Shape::Strings)], Shape::Strings, |args| {
        let full = |value: &&Value| !value.is_null() && value.as_str() != Some("");
        let kept = args.elements(0)?.iter().filter(full).cloned().collect();
        Ok(Value::list(Type::String, kept))
    }),
    Function::new("concat", &[], Shape::Any, concat)
        .variadic(Param::new("seqs", Shape::Any))
        .structure(),
    Function::new("distinct", &[Param::new("list", Shape::List)], Shape::List, |args| {
        like(args.value(0)?, distinct(args.elements(0)?))
    }),
    Function::new("flatten", &[LIST], Shape::Any, flatten).structure(),
    Function::new(
        "matchkeys",
        &[
            Param::new("values", Shape::List),
            Param::new("keys", Shape::List),
            Param::new("searchset", Shape::List),
        ],
        Shape::List,
        matchkeys,
    ),
    Function::new("merge", &[], Shape::Any, merge)
        .variadic(Param::new("maps", Shape::Any).nullable())
        .structure(),
    Function::new("range", &[Param::new("params", Shape::Number)], Shape::Numbers, range)
        .variadic(Param::new("params", Shape::Number)),
    Function::new("reverse", &[LIST], Shape::Any, |args| {
        like(args.value(0)?, args.elements(0)?.iter().rev().cloned().collect())
    })
    .structure(),
    Function::new(
        "slice",
        &[LIST, Param::new("start_index", Shape::Number), Param::new("end_index", Shape::Number)],
        Shape::Any,
        slice,
    )
    .structure(),
    Function::new("sort", &[Param::new("list", Shape::Strings)], Shape::Strings, sort),
    Function::new(
        "transpose",
        &[Param::new("values", Shape::StringsMap)],
        Shape::StringsMap,
        transpose,
    ),
    Function::new(
        "zipmap",
        &[Param::new("keys", Shape::Strings), Param::new("values", Shape::Any)],
        Shape::Any,
        zipmap,
    )
    .structure(),
];

/// Elements taken from `source`: a list if it was a list or set, a tuple if it was one.
fn like(source: &Value, elements: Vec<Value>) -> Result<Value, Failure> {
    match source.data() {
        Data::List(element, _) | Data::Set(element, _) => {
            Ok(Value::list(element.clone(), elements))
        }
        Data::Tuple(_) => Ok(Value::tuple(elements)),
        _ => Err(wrong(0, "a list", source)),
    }
}

fn chunklist(args: &Args<'_>) -> Result<Value, Failure> {
    let (elements, size) = (args.elements(0)?, args.number(1)?);
    let size = size.to_usize().ok_or_else(|| {
        Failure::of(1, format!("a whole number from 0 on is required, not {size}"))
    })?;
    let ty = args.value(0)?.ty();
    let chunk = |chunk: &[Value]| like(args.value(0)?, chunk.to_vec());
    let chunks = match size {
        0 if elements.is_empty() => Vec::new(),
        0 => vec![args.value(0)?.clone()],
        size => elements.chunks(size).map(chunk).collect::<Result<_, _>>()?,
    };
    Ok(Value::list(ty, chunks))
}

/// Lists of one type make a list of it, all else a tuple.
fn concat(args: &Args<'_>) -> Result<Value, Failure> {
    let mut elements = Vec::new();
    for index in 0..args.len() {
        elements.extend_from_slice(args.sequence(index)?);
    }
    let mut lists = args.all().iter().map(|value| match value.data() {
        Data::List(element, _) => Some(element),
        _ => None,
    });
    match lists.next() {
        None => Err(Failure::new("it needs at least one list")),
        Some(Some(first)) if lists.all(|element| element == Some(first)) => {
            Ok(Value::list(first.clone(), elements))
        }
        Some(_) => Ok(Value::tuple(elements)),
    }
}

/// Lists in lists, at any depth, give way to their elements.
fn flatten(args: &Args<'_>) -> Result<Value, Failure> {
    let mut flat = Vec::new();
    let mut sensitive = false;
    let mut open = vec![args.elements(0)?.iter()];
    while let Some(elements) = open.last_mut() {
        let Some(element) = elements.next() else {
            open.pop();
            continue;
        };
        if let Some(inner) = element.as_elements() {
            sensitive |= element.is_sensitive();
            open.push(inner.iter());
        } else if let Data::Unknown(Type::Any | Type::List(_) | Type::Set(_), reason) =
            element.data()
        {
            // How many elements there will be is not known.
            return Ok(Value::unknown(Type::Any, reason.clone()));
        } else {
            flat.push(element.clone());
        }
    }
    Ok(Value::tuple(flat).with_sensitive(sensitive))
}

fn matchkeys(args: &Args<'_>) -> Result<Value, Failure> {
    let (values, keys, wanted) = (args.elements(0)?, args.elements(1)?, args.elements(2)?);
    if values.len() != keys.len() {
        let message = format!("there are {} values for {} keys", values.len(), keys.len());
        return Err(Failure::of(1, message));
    }
    if Type::unify([&args.value(1)?.ty(), &args.value(2)?.ty()]).is_none() {
        return Err(Failure::of(2, "it must be of the same type as the keys"));
    }
    let mut wanted: Vec<&Value> = wanted.iter().collect();
    wanted.sort_by(|a, b| a.order(b));
    let matching = values
        .iter()
        .zip(keys)
        .filter(|(_, key)| wanted.binary_search_by(|candidate| candidate.order(key)).is_ok());
    like(args.value(0)?, matching.map(|(value, _)| value.clone()).collect())
}

/// Later ones win. Maps of one type make a map of it, all else an object.
fn merge(args: &Args<'_>) -> Result<Value, Failure> {
    let mut merged: BTreeMap<Key, Value> = BTreeMap::new();
    let mut element = None;
    let mut uniform = true;
    for (index, value) in args.all().iter().enumerate() {
        if value.is_null() {
            uniform = false;
            continue;
        }
        let entries = args.entries(index)?;
        merged.extend(entries.iter().map(|(key, value)| (key.clone(), value.clone())));
        match value.data() {
            Data::Map(found, _) => {
                uniform &= element.get_or_insert(found) == &found;
            }
            _ => uniform = false,
        }
    }
    Ok(match element {
        Some(element) if uniform => Value::map(element.clone(), merged),
        _ => Value::object(merged),
    })
}

/// The most numbers that a range has. (Terraform stops at 1024, which is too few for the keys
/// of a large stack.)
const MAX_RANGE: usize = 100_000;

fn range(args: &Args<'_>) -> Result<Value, Failure> {
    let zero = Number::ZERO;
    let (start, end) = match args.len() {
        1 => (&zero, args.number(0)?),
        2 | 3 => (args.number(0)?, args.number(1)?),
        _ => return Err(Failure::of(3, "it takes one to three arguments")),
    };
    let downwards = end < start;
    let step = match args.get(2) {
        Some(_) => args.number(2)?.clone(),
        None => Number::from(if downwards { -1_i64 } else { 1 }),
    };
    if start != end && step.is_zero() {
        return Err(Failure::of(2, "a step of 0 never arrives"));
    }
    if start != end && (step.signum() < 0) != downwards {
        let (side, sign) = if downwards { ("below", "negative") } else { ("above", "positive") };
        return Err(Failure::of(2, format!("the end is {side} the start, so the step is {sign}")));
    }
    let mut numbers = Vec::new();
    let mut number = start.clone();
    while if downwards { number > *end } else { number < *end } {
        if numbers.len() == MAX_RANGE {
            return Err(Failure::new(format!("the range has more than {MAX_RANGE} numbers")));
        }
        let next = number.add(&step)?;
        numbers.push(number.into());
        number = next;
    }
    Ok(Value::list(Type::Number, numbers))
}

fn slice(args: &Args<'_>) -> Result<Value, Failure> {
    let (source, elements) = (args.value(0)?, args.sequence(0)?);
    let bound = |index: usize| {
        let number = args.number(index)?;
        number.to_usize().filter(|position| *position <= elements.len()).ok_or_else(|| {
            let length = elements.len();
            Failure::of(index, format!("a position from 0 to {length} is required, not {number}"))
        })
    };
    let (start, end) = (bound(1)?, bound(2)?);
    if start > end {
        return Err(Failure::of(1, "the start must not be behind the end"));
    }
    like(source, elements[start..end].to_vec())
}

fn sort(args: &Args<'_>) -> Result<Value, Failure> {
    let mut elements = args.elements(0)?.to_vec();
    for element in &elements {
        if element.is_null() {
            return Err(Failure::of(0, "null cannot be sorted"));
        }
        text_of(element, 0)?;
    }
    elements.sort_by(Value::order);
    Ok(Value::list(Type::String, elements))
}

fn transpose(args: &Args<'_>) -> Result<Value, Failure> {
    let mut lists: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for (key, values) in args.entries(0)? {
        let values = values
            .as_elements()
            .ok_or_else(|| Failure::of(0, format!("the list \"{key}\" must not be null")))?;
        for value in values {
            let name = key_of(value, 0)?;
            lists.entry(name).or_default().push(key.clone().into());
        }
    }
    let lists = lists.into_iter().map(|(key, keys)| (key, Value::list(Type::String, keys)));
    Ok(Value::map(Type::list(Type::String), lists.collect()))
}

fn key_of(value: &Value, index: usize) -> Result<Key, Failure> {
    match value.data() {
        Data::String(text) => Ok(text.clone()),
        Data::Null(_) => Err(Failure::of(index, "a key must not be null")),
        _ => text_of(value, index).map(Key::from),
    }
}

fn zipmap(args: &Args<'_>) -> Result<Value, Failure> {
    let (keys, values) = (args.elements(0)?, args.sequence(1)?);
    if keys.len() != values.len() {
        let message = format!("there are {} values for {} keys", values.len(), keys.len());
        return Err(Failure::of(1, message));
    }
    if let Some(reason) = keys.iter().find_map(Value::unknown_reason) {
        return Ok(Value::unknown(Type::Any, reason.clone()));
    }
    let sensitive = keys.iter().any(Value::is_sensitive);
    let entry = |(key, value): (&Value, &Value)| Ok((key_of(key, 0)?, value.clone()));
    let entries = keys.iter().zip(values).map(entry).collect::<Result<_, Failure>>()?;
    let made = match args.value(1)?.data() {
        Data::List(element, _) => Value::map(element.clone(), entries),
        _ => Value::object(entries),
    };
    Ok(made.with_sensitive(sensitive))
}
