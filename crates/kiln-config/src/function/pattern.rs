//! Regular expressions, in the RE2 syntax that Terraform has, and `replace`.

use std::collections::BTreeMap;

use regex::{Captures, Regex, RegexBuilder};

use super::{Args, Failure, Function, Param, Shape};
use crate::value::{Data, Type, Value};

const PATTERN: Param = Param::new("pattern", Shape::String);
const STR: Param = Param::new("string", Shape::String);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("regex", &[PATTERN, STR], Shape::Any, |args| {
        let (regex, text) = (compile(args.text(0)?, 0)?, args.text(1)?);
        let captures = regex
            .captures(text)
            .ok_or_else(|| Failure::new("the pattern matches no part of the text"))?;
        Ok(captured(&regex, &captures))
    }),
    Function::new("regexall", &[PATTERN, STR], Shape::List, |args| {
        let regex = compile(args.text(0)?, 0)?;
        let found: Vec<Value> =
            regex.captures_iter(args.text(1)?).map(|found| captured(&regex, &found)).collect();
        let element = found.first().map_or_else(|| result_type(&regex), Value::ty);
        Ok(Value::list(element, found))
    }),
    Function::new(
        "replace",
        &[
            Param::new("str", Shape::String),
            Param::new("substr", Shape::String),
            Param::new("replace", Shape::String),
        ],
        Shape::String,
        replace,
    ),
];

/// The most memory that a compiled pattern takes, in bytes.
const MAX_COMPILED: usize = 1 << 20;

fn compile(pattern: &str, index: usize) -> Result<Regex, Failure> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build().map_err(|error| {
        let message = error.to_string();
        // The library draws the pattern over several lines; the last one says what is wrong.
        let last = message.lines().last().unwrap_or_default();
        let reason = last.strip_prefix("error: ").unwrap_or(last).to_owned();
        Failure::of(index, format!("\"{pattern}\" is not a valid pattern: {reason}"))
    })
}

/// The whole match; with groups a tuple of them, with named groups an object of those.
fn captured(regex: &Regex, captures: &Captures<'_>) -> Value {
    let group = |found: Option<regex::Match<'_>>| {
        found.map_or_else(|| Data::Null(Type::String).into(), |found| found.as_str().into())
    };
    let names: BTreeMap<_, _> = regex
        .capture_names()
        .flatten()
        .map(|name| (name.into(), group(captures.name(name))))
        .collect();
    if !names.is_empty() {
        Value::object(names)
    } else if captures.len() == 1 {
        group(captures.get(0))
    } else {
        Value::tuple(captures.iter().skip(1).map(group).collect())
    }
}

fn result_type(regex: &Regex) -> Type {
    let names: BTreeMap<_, _> =
        regex.capture_names().flatten().map(|name| (name.into(), Type::String)).collect();
    if !names.is_empty() {
        return Type::Object(names.into());
    }
    match regex.captures_len() {
        1 => Type::String,
        groups => Type::Tuple(vec![Type::String; groups - 1].into()),
    }
}

/// The largest text that `replace` makes, in bytes.
const MAX_TEXT: usize = 64 << 20;

/// A pattern between slashes is a regular expression.
fn replace(args: &Args<'_>) -> Result<Value, Failure> {
    let (text, pattern, with) = (args.text(0)?, args.text(1)?, args.text(2)?);
    if let Some(inner) = pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        return replace_all(&compile(inner, 1)?, text, with);
    }
    let matches = text.len() / pattern.len().max(1) + 1;
    bounded(text.len().saturating_add(matches.saturating_mul(with.len())))?;
    Ok(text.replace(pattern, with).into())
}

fn replace_all(regex: &Regex, text: &str, with: &str) -> Result<Value, Failure> {
    let mut replaced = String::new();
    let mut end = 0;
    for captures in regex.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        replaced.push_str(&text[end..whole.start()]);
        // Two characters, as in `$0`, can stand for all of the match.
        bounded(replaced.len().saturating_add(with.len().saturating_mul(whole.len().max(1))))?;
        captures.expand(with, &mut replaced);
        end = whole.end();
    }
    replaced.push_str(&text[end..]);
    Ok(replaced.into())
}

fn bounded(bytes: usize) -> Result<(), Failure> {
    if bytes <= MAX_TEXT {
        return Ok(());
    }
    Err(Failure::of(2, format!("the result would be larger than {MAX_TEXT} bytes")))
}
