//! Type constraints: the types of variables, with optional attributes and their defaults.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::convert::{ConvertError, convert, key_step, unify};
use super::{Data, Key, Type, Value};

/// What a variable may be: a [`Type`] whose objects may leave attributes out.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// A type without optional attributes in it.
    Plain(Type),
    /// `list(…)`.
    List(Box<Constraint>),
    /// `set(…)`.
    Set(Box<Constraint>),
    /// `map(…)`.
    Map(Box<Constraint>),
    /// `tuple([…])`.
    Tuple(Vec<Constraint>),
    /// `object({…})`.
    Object(BTreeMap<Key, Field>),
}

/// One attribute of an object constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// What it may be.
    pub constraint: Constraint,
    /// Whether it may be left out.
    pub optional: bool,
    /// What it is then; null where nothing is said.
    pub default: Option<Value>,
}

type Result<T = Value> = std::result::Result<T, ConvertError>;

impl Constraint {
    /// The type of the values that [`Self::apply`] yields.
    pub fn ty(&self) -> Type {
        match self {
            Self::Plain(ty) => ty.clone(),
            Self::List(element) => Type::list(element.ty()),
            Self::Set(element) => Type::set(element.ty()),
            Self::Map(element) => Type::map(element.ty()),
            Self::Tuple(elements) => Type::Tuple(elements.iter().map(Self::ty).collect()),
            Self::Object(fields) => {
                let types = fields.iter().map(|(key, field)| (key.clone(), field.constraint.ty()));
                Type::Object(Arc::new(types.collect()))
            }
        }
    }

    /// `value` with the defaults filled in, converted to the type.
    pub fn apply(&self, value: &Value) -> Result {
        if let Self::Plain(ty) = self {
            return convert(value, ty);
        }
        if value.is_null() || value.unknown_reason().is_some() {
            return convert(value, &self.ty());
        }
        let made = match self {
            Self::Plain(ty) => convert(value, ty)?,
            Self::List(element) => {
                let (ty, elements) = element.apply_all(value, &self.ty())?;
                Value::list(ty, elements)
            }
            Self::Set(element) => {
                let (ty, elements) = element.apply_all(value, &self.ty())?;
                Value::set(ty, elements)
            }
            Self::Map(element) => element.apply_entries(value, &self.ty())?,
            Self::Tuple(elements) => apply_tuple(elements, value, &self.ty())?,
            Self::Object(fields) => apply_object(fields, value, &self.ty())?,
        };
        Ok(made.with_sensitive(value.is_sensitive()))
    }

    fn apply_all(&self, value: &Value, whole: &Type) -> Result<(Type, Vec<Value>)> {
        // What is no sequence fails here, with the message of a conversion.
        let Some(elements) = value.as_elements() else {
            return Err(convert(value, whole).err().unwrap_or_else(|| unexpected(value)));
        };
        let apply_one = |(index, element)| {
            self.apply(element).map_err(|error| error.inside(&format!("[{index}]")))
        };
        let elements: Vec<Value> =
            elements.iter().enumerate().map(apply_one).collect::<Result<_>>()?;
        self.settle(elements)
    }

    fn apply_entries(&self, value: &Value, whole: &Type) -> Result {
        let Some(entries) = value.as_entries() else {
            return Err(convert(value, whole).err().unwrap_or_else(|| unexpected(value)));
        };
        let apply_one = |(key, value): (&Key, &Value)| {
            self.apply(value).map_err(|error| error.inside(&key_step(key)))
        };
        let values = entries.iter().map(apply_one).collect::<Result<_>>()?;
        let (ty, values) = self.settle(values)?;
        Ok(Value::map(ty, entries.keys().cloned().zip(values).collect()))
    }

    /// The element type; elements under an `any` are brought to one type.
    fn settle(&self, elements: Vec<Value>) -> Result<(Type, Vec<Value>)> {
        let ty = self.ty();
        if ty.is_whole() {
            return Ok((ty, elements));
        }
        unify(elements).map_err(|error| ConvertError::new(error.to_string()))
    }
}

fn unexpected(value: &Value) -> ConvertError {
    ConvertError::new(format!("{} does not fit", value.describe()))
}

fn apply_tuple(elements: &[Constraint], value: &Value, whole: &Type) -> Result {
    let found = match value.data() {
        Data::Tuple(found) if found.len() == elements.len() => found,
        _ => return convert(value, whole),
    };
    let apply_one = |(index, (constraint, element)): (usize, (&Constraint, &Value))| {
        constraint.apply(element).map_err(|error| error.inside(&format!("[{index}]")))
    };
    let made = elements.iter().zip(found.iter()).enumerate().map(apply_one);
    Ok(Value::tuple(made.collect::<Result<_>>()?))
}

fn apply_object(fields: &BTreeMap<Key, Field>, value: &Value, whole: &Type) -> Result {
    let Some(entries) = value.as_entries() else { return convert(value, whole) };
    let mut made = BTreeMap::new();
    for (key, field) in fields {
        let value = field.apply(key, entries.get(key))?;
        made.insert(key.clone(), value);
    }
    Ok(Value::object(made))
}

impl Field {
    fn apply(&self, key: &Key, given: Option<&Value>) -> Result {
        // As in Terraform an attribute that is null takes the default, too.
        let given = given.filter(|value| !(self.optional && value.is_null()));
        let value = match (given, &self.default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => default.clone(),
            (None, None) if self.optional => Value::null(),
            (None, None) => {
                return Err(ConvertError::new(format!("attribute \"{key}\" is required")));
            }
        };
        self.constraint.apply(&value).map_err(|error| error.inside(&key_step(key)))
    }
}
