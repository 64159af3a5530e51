//! Comma-separated values (RFC 4180).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Args, Failure, Function, Param, Shape};
use crate::value::{Key, Type, Value};

pub(super) const FUNCTIONS: &[Function] =
    &[Function::new("csvdecode", &[Param::new("str", Shape::String)], Shape::List, csvdecode)];

/// One object per line, whose attributes are called as the first line says.
fn csvdecode(args: &Args<'_>) -> Result<Value, Failure> {
    let mut reader = ::csv::Reader::from_reader(args.text(0)?.as_bytes());
    let malformed = |error: ::csv::Error| {
        let reason = error.to_string();
        let reason = reason.strip_prefix("CSV error: ").unwrap_or(&reason);
        Failure::of(0, format!("it is not CSV: {reason}"))
    };
    let header = reader.headers().map_err(malformed)?.clone();
    if header.is_empty() {
        return Err(Failure::of(0, "the line that names the columns is missing"));
    }
    let names: Vec<Key> = header.iter().map(Key::from).collect();
    let mut types = BTreeMap::new();
    for name in &names {
        if types.insert(name.clone(), Type::String).is_some() {
            return Err(Failure::of(0, format!("two columns are called \"{name}\"")));
        }
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(malformed)?;
        let fields = record.iter().map(Value::from);
        rows.push(Value::object(names.iter().cloned().zip(fields).collect()));
    }
    Ok(Value::list(Type::Object(Arc::new(types)), rows))
}
