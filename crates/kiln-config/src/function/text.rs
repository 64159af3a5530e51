//! Functions on text. Characters are what a reader takes for one: grapheme clusters.

use unicode_segmentation::UnicodeSegmentation;

use super::{Args, Failure, Function, Param, Shape};
use crate::value::secret::TextBuilder;
use crate::value::{Data, Type, Value};

const STR: Param = Param::new("str", Shape::String);
const PREFIX: Param = Param::new("prefix", Shape::String);
const SUFFIX: Param = Param::new("suffix", Shape::String);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("chomp", &[STR], Shape::String, |args| {
        Ok(args.text(0)?.trim_end_matches(['\r', '\n']).into())
    }),
    Function::new("endswith", &[STR, SUFFIX], Shape::Bool, |args| {
        Ok(args.text(0)?.ends_with(args.text(1)?).into())
    }),
    Function::new("indent", &[Param::new("spaces", Shape::Number), STR], Shape::String, indent),
    Function::new("join", &[Param::new("separator", Shape::String)], Shape::String, join)
        .variadic(Param::new("lists", Shape::Strings)),
    Function::new("lower", &[STR], Shape::String, |args| {
        Ok(map_chars(args.text(0)?, |char| single(char.to_lowercase(), char)))
    }),
    Function::new("split", &[Param::new("separator", Shape::String), STR], Shape::Strings, split),
    Function::new("startswith", &[STR, PREFIX], Shape::Bool, |args| {
        Ok(args.text(0)?.starts_with(args.text(1)?).into())
    }),
    Function::new(
        "strcontains",
        &[STR, Param::new("substr", Shape::String)],
        Shape::Bool,
        |args| Ok(args.text(0)?.contains(args.text(1)?).into()),
    ),
    Function::new("strrev", &[STR], Shape::String, |args| {
        Ok(args.text(0)?.graphemes(true).rev().collect::<String>().into())
    }),
    Function::new(
        "substr",
        &[STR, Param::new("offset", Shape::Number), Param::new("length", Shape::Number)],
        Shape::String,
        substr,
    ),
    Function::new("title", &[STR], Shape::String, title),
    Function::new("trim", &[STR, Param::new("cutset", Shape::String)], Shape::String, |args| {
        let cutset: Vec<char> = args.text(1)?.chars().collect();
        Ok(args.text(0)?.trim_matches(cutset.as_slice()).into())
    }),
    Function::new("trimprefix", &[STR, PREFIX], Shape::String, |args| {
        let text = args.text(0)?;
        Ok(text.strip_prefix(args.text(1)?).unwrap_or(text).into())
    }),
    Function::new("trimspace", &[STR], Shape::String, |args| Ok(args.text(0)?.trim().into())),
    Function::new("trimsuffix", &[STR, SUFFIX], Shape::String, |args| {
        let text = args.text(0)?;
        Ok(text.strip_suffix(args.text(1)?).unwrap_or(text).into())
    }),
    Function::new("upper", &[STR], Shape::String, |args| {
        Ok(map_chars(args.text(0)?, |char| single(char.to_uppercase(), char)))
    }),
];

fn map_chars(text: &str, map: fn(char) -> char) -> Value {
    text.chars().map(map).collect::<String>().into()
}

/// The counterpart in the other case where that is one character: `ß` stays as it is.
fn single(mut mapped: impl ExactSizeIterator<Item = char>, original: char) -> char {
    if mapped.len() == 1 { mapped.next().unwrap_or(original) } else { original }
}

/// What follows anything but a letter, a digit or an underscore begins a word.
fn title(args: &Args<'_>) -> Result<Value, Failure> {
    let mut at_start = true;
    let titled = args.text(0)?.chars().map(|char| {
        let titled = if at_start { single(char.to_uppercase(), char) } else { char };
        at_start = if char.is_ascii() {
            !(char.is_ascii_alphanumeric() || char == '_')
        } else {
            char.is_whitespace()
        };
        titled
    });
    Ok(titled.collect::<String>().into())
}

/// The most spaces that one line is indented by.
const MAX_INDENT: usize = 1_024;

fn indent(args: &Args<'_>) -> Result<Value, Failure> {
    let spaces = args.number(0)?.to_usize().filter(|spaces| *spaces <= MAX_INDENT);
    let spaces = spaces.ok_or_else(|| {
        Failure::of(0, format!("a whole number from 0 to {MAX_INDENT} is required"))
    })?;
    Ok(args.text(1)?.replace('\n', &format!("\n{:spaces$}", "")).into())
}

fn join(args: &Args<'_>) -> Result<Value, Failure> {
    if args.len() < 2 {
        return Err(Failure::new("it needs at least one list behind the separator"));
    }
    let mut text = TextBuilder::default();
    let mut first = true;
    for index in 1..args.len() {
        for (position, element) in args.elements(index)?.iter().enumerate() {
            if !first {
                push(&mut text, args.value(0)?, 0)?;
            }
            first = false;
            if element.is_null() {
                let message = format!("element {position} is null, which cannot be joined");
                return Err(Failure::of(index, message));
            }
            push(&mut text, element, index)?;
        }
    }
    Ok(text.finish().into())
}

/// Appends a value that is text, with or without a secret.
pub(super) fn push(text: &mut TextBuilder, value: &Value, index: usize) -> Result<(), Failure> {
    match value.data() {
        Data::Secret(secret) => text.push_secret(secret),
        _ => text.push_str(super::args::text_of(value, index)?),
    }
    Ok(())
}

fn split(args: &Args<'_>) -> Result<Value, Failure> {
    let (separator, text) = (args.text(0)?, args.text(1)?);
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars().map(|char| char.to_string().into()).collect()
    } else {
        text.split(separator).map(Value::from).collect()
    };
    Ok(Value::list(Type::String, parts))
}

fn substr(args: &Args<'_>) -> Result<Value, Failure> {
    let clusters: Vec<&str> = args.text(0)?.graphemes(true).collect();
    let (offset, length) = (args.whole(1)?, args.whole(2)?);
    let start = if offset < 0 {
        clusters.len().saturating_sub(usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX))
    } else {
        usize::try_from(offset).unwrap_or(usize::MAX).min(clusters.len())
    };
    // A negative length stands for all that is left.
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let end = start.saturating_add(length).min(clusters.len());
    Ok(clusters[start..end].concat().into())
}
