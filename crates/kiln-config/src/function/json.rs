//! JSON (RFC 8259), written as Terraform writes it: keys in order, no spaces, and `<`, `>` and
//! `&` escaped.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Args, Failure, Function, Param, Shape};
use crate::value::secret::{BuiltText, Escape, TextBuilder};
use crate::value::{Data, Key, Number, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("jsondecode", &[Param::new("str", Shape::String)], Shape::Any, |args| {
        decode(args.text(0)?)
    }),
    Function::new(
        "jsonencode",
        &[Param::new("val", Shape::Any).nullable()],
        Shape::String,
        |args: &Args<'_>| encode(args.value(0)?).map(Value::from),
    ),
];

/// The longest text that is made, in bytes.
const MAX_TEXT: usize = 64 << 20;

/// A wholly known value as JSON. Text with secrets keeps them, escaped.
pub fn encode(value: &Value) -> Result<BuiltText, Failure> {
    let mut text = TextBuilder::default();
    write(value, &mut text)?;
    Ok(text.finish())
}

fn write(value: &Value, out: &mut TextBuilder) -> Result<(), Failure> {
    if out.len() > MAX_TEXT {
        return Err(Failure::of(0, format!("its text would be longer than {MAX_TEXT} bytes")));
    }
    match value.data() {
        Data::Null(_) => out.push_str("null"),
        Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Data::Number(number) => out.push_str(&number.to_string()),
        Data::String(text) => out.push_str(&quote(text)),
        Data::Secret(text) => {
            out.push_str("\"");
            out.push_secret(&text.escaped(Escape::Json));
            out.push_str("\"");
        }
        Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements) => {
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index == 0 { "[" } else { "," });
                write(element, out)?;
            }
            out.push_str(if elements.is_empty() { "[]" } else { "]" });
        }
        Data::Map(_, entries) | Data::Object(entries) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "{" } else { "," });
                out.push_str(&quote(key));
                out.push_str(":");
                write(value, out)?;
            }
            out.push_str(if entries.is_empty() { "{}" } else { "}" });
        }
        Data::Component(component) => {
            return Err(Failure::of(0, format!("{component} is a component, not data"))
                .with_help(format!("name its attributes, such as {component}.address")));
        }
        Data::Unknown(_, reason) => {
            return Err(Failure::of(0, format!("it is not known before apply: {reason}")));
        }
    }
    Ok(())
}

/// Text as a JSON string.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    quoted.push_str(&Escape::Json.apply(text));
    quoted.push('"');
    quoted
}

/// JSON as a value: arrays are tuples and objects are objects. Numbers keep all their digits.
pub fn decode(text: &str) -> Result<Value, Failure> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    read(raw).map_err(|error| match error {
        ReadError::Json(error) => malformed(&error),
        ReadError::Number(number, error) => Failure::of(0, format!("{number}: {error}")),
    })
}

fn malformed(error: &serde_json::Error) -> Failure {
    Failure::of(0, format!("it is not JSON: {error}"))
}

enum ReadError {
    Json(serde_json::Error),
    Number(String, crate::value::NumberError),
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// One level at a time, since only the raw text of a number has all of it. The parser bounds
/// the depth when it checks the whole.
fn read(raw: &RawValue) -> Result<Value, ReadError> {
    let text = raw.get();
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let entries: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let read_one = |(key, raw): (String, &RawValue)| Ok((Key::from(key), read(raw)?));
            Value::object(entries.into_iter().map(read_one).collect::<Result<_, ReadError>>()?)
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            Value::tuple(elements.into_iter().map(read).collect::<Result<_, _>>()?)
        }
        Some(b'"') => serde_json::from_str::<String>(text)?.into(),
        Some(b't') => true.into(),
        Some(b'f') => false.into(),
        Some(b'n') => Value::null(),
        _ => match text.parse::<Number>() {
            Ok(number) => number.into(),
            Err(error) => return Err(ReadError::Number(text.to_owned(), error)),
        },
    })
}
