//! Conversion of values to types, by the rules of Terraform.
//!
//! Numbers and bools become text and text that spells one becomes a number or bool; sequences
//! convert among each other and so do maps and objects, element by element. An object keeps
//! only the attributes that the wanted type names and must have them all. Null stays null,
//! unknown stays unknown, and marks are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Data, Key, Number, NumberError, Type, Value};

/// Why a value cannot be brought to a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", if path.is_empty() { String::new() } else { format!("at {path}: ") })]
pub struct ConvertError {
    /// Where inside the value: `.ports[0]`; empty for the value itself.
    pub path: String,
    /// What is wrong there: `a number is required, not a list`.
    pub message: String,
    /// The way out, where there is one in particular.
    pub help: Option<String>,
}

impl ConvertError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into(), help: None }
    }

    pub(crate) fn inside(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

type Result<T = Value> = std::result::Result<T, ConvertError>;

/// `value` as a value of type `ty`.
pub fn convert(value: &Value, ty: &Type) -> Result {
    let data = match (value.data(), ty) {
        (_, Type::Any)
        | (Data::Bool(_), Type::Bool)
        | (Data::Number(_), Type::Number)
        | (Data::String(_) | Data::Secret(_), Type::String)
        | (Data::Component(_), Type::Component) => return Ok(value.clone()),
        (Data::Null(_), ty) => Data::Null(ty.clone()),
        (Data::Unknown(from, reason), ty) => {
            if !possible(from, ty) {
                return Err(mismatch(value, ty));
            }
            Data::Unknown(ty.clone(), reason.clone())
        }
        (_, Type::Bool) => Data::Bool(to_bool(value)?),
        (_, Type::Number) => Data::Number(to_number(value)?),
        (_, Type::String) => Data::String(to_text(value)?),
        (_, Type::Component) => return Err(mismatch(value, ty)),
        (_, Type::List(element) | Type::Set(element)) => return to_sequence(value, ty, element),
        (_, Type::Map(element)) => return to_map(value, element),
        (_, Type::Tuple(types)) => to_tuple(value, types)?,
        (_, Type::Object(types)) => to_object(value, types)?,
    };
    Ok(Value::from(data).with_sensitive(value.sensitive))
}

/// Brings values to the one type that all of them can be brought to.
pub fn unify(values: Vec<Value>) -> std::result::Result<(Type, Vec<Value>), UnifyError> {
    let types: Vec<Type> = values.iter().map(Value::ty).collect();
    let ty = Type::unify(&types).ok_or(UnifyError)?;
    if types.iter().all(|found| *found == ty) {
        return Ok((ty, values));
    }
    let converted: Result<Vec<Value>> = values.iter().map(|value| convert(value, &ty)).collect();
    converted.map(|values| (ty, values)).map_err(|_| UnifyError)
}

/// The values have no type in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all elements must have the same type, and these have no type in common")]
pub struct UnifyError;

/// Whether some value of one type can be converted to the other.
fn possible(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (Type::String, to) if *to != Type::Any => to.is_primitive(),
        (from, Type::String) if *from != Type::Any => from.is_primitive(),
        (Type::Any, _)
        | (_, Type::Any)
        | (Type::List(_) | Type::Set(_) | Type::Tuple(_), Type::List(_) | Type::Set(_))
        | (Type::Map(_) | Type::Object(_), Type::Map(_) | Type::Object(_))
        | (Type::Tuple(_), Type::Tuple(_)) => true,
        (from, to) => from == to,
    }
}

fn mismatch(value: &Value, ty: &Type) -> ConvertError {
    let error =
        ConvertError::new(format!("{} is required, not {}", ty.describe(), value.describe()));
    match (value.data(), ty) {
        (Data::Component(component), Type::Bool | Type::Number | Type::String) => {
            error.with_help(format!("name one of its attributes, such as {component}.address"))
        }
        _ => error,
    }
}

fn to_bool(value: &Value) -> Result<bool> {
    match value.data() {
        Data::String(text) => match &**text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => {
                let error = ConvertError::new("a bool is required");
                Err(match other.to_ascii_lowercase().as_str() {
                    lower @ ("true" | "false") => error.with_help(format!("write \"{lower}\"")),
                    _ => error,
                })
            }
        },
        Data::Secret(_) => Err(secret_text("as a bool")),
        _ => Err(mismatch(value, &Type::Bool)),
    }
}

fn to_number(value: &Value) -> Result<Number> {
    match value.data() {
        Data::String(text) => {
            text.parse().map_err(|error: NumberError| ConvertError::new(error.to_string()))
        }
        Data::Secret(_) => Err(secret_text("as a number")),
        _ => Err(mismatch(value, &Type::Number)),
    }
}

fn to_text(value: &Value) -> Result<Arc<str>> {
    match value.data() {
        Data::Bool(true) => Ok("true".into()),
        Data::Bool(false) => Ok("false".into()),
        Data::Number(number) => Ok(number.to_string().into()),
        _ => Err(mismatch(value, &Type::String)),
    }
}

fn secret_text(wanted: &str) -> ConvertError {
    ConvertError::new(format!("the text of a secret is never read, so it cannot serve {wanted}"))
}

fn to_sequence(value: &Value, ty: &Type, element: &Type) -> Result {
    let list = matches!(ty, Type::List(_));
    match value.data() {
        Data::List(found, _) if list && (found == element || *element == Type::Any) => {
            return Ok(value.clone());
        }
        Data::Set(found, _) if !list && (found == element || *element == Type::Any) => {
            return Ok(value.clone());
        }
        _ => {}
    }
    let elements = value.as_elements().ok_or_else(|| mismatch(value, ty))?;
    if let Data::List(found, _) | Data::Set(found, _) = value.data()
        && !possible(found, element)
    {
        // Even where there are no elements.
        return Err(mismatch(value, ty));
    }
    let (element, elements) =
        if let (Type::Any, Data::List(found, _) | Data::Set(found, _)) = (element, value.data()) {
            // They are of one type already.
            (found.clone(), elements.to_vec())
        } else if *element == Type::Any {
            let what = if list { "list" } else { "set" };
            unify(elements.to_vec()).map_err(|_| {
                ConvertError::new(format!("all {what} elements must have the same type"))
            })?
        } else {
            (element.clone(), convert_all(elements, element)?)
        };
    let made = if list { Value::list(element, elements) } else { Value::set(element, elements) };
    Ok(made.with_sensitive(value.sensitive))
}

fn convert_all(elements: &[Value], ty: &Type) -> Result<Vec<Value>> {
    let convert_one = |(index, element)| {
        convert(element, ty).map_err(|error| error.inside(&format!("[{index}]")))
    };
    elements.iter().enumerate().map(convert_one).collect()
}

fn to_map(value: &Value, element: &Type) -> Result {
    match value.data() {
        Data::Map(found, _) if found == element || *element == Type::Any => {
            return Ok(value.clone());
        }
        Data::Map(found, _) if !possible(found, element) => {
            return Err(mismatch(value, &Type::map(element.clone())));
        }
        _ => {}
    }
    let entries = value.as_entries().ok_or_else(|| mismatch(value, &Type::map(element.clone())))?;
    let (element, values) = if *element == Type::Any {
        unify(entries.values().cloned().collect())
            .map_err(|_| ConvertError::new("all map elements must have the same type"))?
    } else {
        let convert_one = |(key, value): (&Key, &Value)| {
            convert(value, element).map_err(|error| error.inside(&key_step(key)))
        };
        (element.clone(), entries.iter().map(convert_one).collect::<Result<_>>()?)
    };
    let entries = entries.keys().cloned().zip(values).collect();
    Ok(Value::map(element, entries).with_sensitive(value.sensitive))
}

fn to_tuple(value: &Value, types: &[Type]) -> Result<Data> {
    let elements = match value.data() {
        Data::Tuple(elements) if elements.len() == types.len() => elements,
        Data::Tuple(elements) => {
            let message = format!(
                "a tuple of {} elements is required, not of {}",
                types.len(),
                elements.len()
            );
            return Err(ConvertError::new(message));
        }
        _ => return Err(mismatch(value, &Type::Tuple(types.into()))),
    };
    let convert_one = |(index, (element, ty))| {
        convert(element, ty).map_err(|error| error.inside(&format!("[{index}]")))
    };
    let elements = elements.iter().zip(types).enumerate().map(convert_one);
    Ok(Data::Tuple(Arc::new(elements.collect::<Result<_>>()?)))
}

fn to_object(value: &Value, types: &BTreeMap<Key, Type>) -> Result<Data> {
    let Some(entries) = value.as_entries() else {
        return Err(ConvertError::new(format!("an object is required, not {}", value.describe())));
    };
    let convert_one = |(key, ty): (&Key, &Type)| {
        let Some(value) = entries.get(key) else {
            return Err(ConvertError::new(format!("attribute \"{key}\" is required")));
        };
        let value = convert(value, ty).map_err(|error| error.inside(&key_step(key)))?;
        Ok((key.clone(), value))
    };
    Ok(Data::Object(Arc::new(types.iter().map(convert_one).collect::<Result<_>>()?)))
}

/// `.key`, or `["key"]` where the key is no identifier.
pub(super) fn key_step(key: &str) -> String {
    let plain = key.starts_with(|char: char| char.is_alphabetic() || char == '_')
        && key.chars().all(|char| char.is_alphanumeric() || char == '_' || char == '-');
    if plain { format!(".{key}") } else { format!("[{key:?}]") }
}
