//! The types of values, and the type to which several can be brought (unification).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Key;

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Not yet known, or of no matter: that of `null` and of a value wholly unknown.
    Any,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// Text.
    String,
    /// A reference to a component. Kiln's own; the kind is part of the value, not of the type.
    Component,
    /// A sequence of values of one type.
    List(Arc<Type>),
    /// Distinct values of one type, in their natural order.
    Set(Arc<Type>),
    /// Values of one type by name.
    Map(Arc<Type>),
    /// A sequence of values, each of its own type.
    Tuple(Arc<[Type]>),
    /// Named values, each of its own type.
    Object(Arc<BTreeMap<Key, Type>>),
}

impl Type {
    /// A list of this type.
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    /// A set of this type.
    pub fn set(element: Self) -> Self {
        Self::Set(Arc::new(element))
    }

    /// A map of this type.
    pub fn map(element: Self) -> Self {
        Self::Map(Arc::new(element))
    }

    /// Whether it is bool, number or string.
    pub fn is_primitive(&self) -> bool {
        matches!(self, Self::Bool | Self::Number | Self::String)
    }

    /// Whether `Any` stands nowhere in it.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Bool | Self::Number | Self::String | Self::Component => true,
            Self::List(element) | Self::Set(element) | Self::Map(element) => element.is_whole(),
            Self::Tuple(elements) => elements.iter().all(Self::is_whole),
            Self::Object(attributes) => attributes.values().all(Self::is_whole),
        }
    }

    /// The type to which values of all these types can be converted, if there is one.
    ///
    /// `Any` yields to every other type. No types at all unify to `Any`.
    pub fn unify<'a>(types: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut types = types.into_iter();
        let Some(first) = types.next() else { return Some(Self::Any) };
        let mut result = first.clone();
        for next in types {
            // Equal neighbours are the rule in long lists.
            if *next != result {
                result = result.unify_with(next)?;
            }
        }
        Some(result)
    }

    fn unify_with(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a.clone()),
            (Self::Any, other) | (other, Self::Any) => Some(other.clone()),
            (Self::String, Self::Bool | Self::Number)
            | (Self::Bool | Self::Number, Self::String) => Some(Self::String),
            (Self::List(a), Self::List(b) | Self::Set(b)) | (Self::Set(a), Self::List(b)) => {
                Some(Self::list(a.unify_with(b)?))
            }
            (Self::Set(a), Self::Set(b)) => Some(Self::set(a.unify_with(b)?)),
            (Self::Map(a), Self::Map(b)) => Some(Self::map(a.unify_with(b)?)),
            (Self::List(a), Self::Tuple(b)) | (Self::Tuple(b), Self::List(a)) => {
                Some(Self::list(Self::unify(b.iter().chain([&**a]))?))
            }
            (Self::Set(a), Self::Tuple(b)) | (Self::Tuple(b), Self::Set(a)) => {
                Some(Self::set(Self::unify(b.iter().chain([&**a]))?))
            }
            (Self::Map(a), Self::Object(b)) | (Self::Object(b), Self::Map(a)) => {
                Some(Self::map(Self::unify(b.values().chain([&**a]))?))
            }
            (Self::Tuple(a), Self::Tuple(b)) => unify_tuples(a, b),
            (Self::Object(a), Self::Object(b)) => unify_objects(a, b),
            _ => None,
        }
    }
}

fn unify_tuples(a: &[Type], b: &[Type]) -> Option<Type> {
    if a.len() == b.len() {
        let elements: Option<Arc<[Type]>> = a.iter().zip(b).map(|(a, b)| a.unify_with(b)).collect();
        return elements.map(Type::Tuple);
    }
    Type::unify(a.iter().chain(b)).map(Type::list)
}

fn unify_objects(a: &BTreeMap<Key, Type>, b: &BTreeMap<Key, Type>) -> Option<Type> {
    if a.keys().eq(b.keys()) {
        let attributes: Option<BTreeMap<Key, Type>> =
            a.iter().map(|(key, ty)| Some((key.clone(), ty.unify_with(b.get(key)?)?))).collect();
        return attributes.map(|attributes| Type::Object(Arc::new(attributes)));
    }
    Type::unify(a.values().chain(b.values())).map(Type::map)
}

/// As it is written in a type constraint, on one line.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Bool => f.write_str("bool"),
            Self::Number => f.write_str("number"),
            Self::String => f.write_str("string"),
            Self::Component => f.write_str("component"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Set(element) => write!(f, "set({element})"),
            Self::Map(element) => write!(f, "map({element})"),
            Self::Tuple(elements) => {
                f.write_str("tuple([")?;
                for (index, element) in elements.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{element}")?;
                }
                f.write_str("])")
            }
            Self::Object(attributes) => {
                f.write_str("object({")?;
                for (index, (key, ty)) in attributes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{key} = {ty}")?;
                }
                f.write_str("})")
            }
        }
    }
}

impl Type {
    /// What it is called: `list of string`, `object`.
    pub(super) fn name(&self) -> String {
        match self {
            Self::List(element) => format!("list of {}", element.name()),
            Self::Set(element) => format!("set of {}", element.name()),
            Self::Map(element) => format!("map of {}", element.name()),
            Self::Tuple(_) => "tuple".into(),
            Self::Object(_) => "object".into(),
            plain => plain.to_string(),
        }
    }

    /// What a value of this type is called in a message: `a list of string`, `an object`.
    pub fn describe(&self) -> String {
        match self {
            Self::Any => "any value".into(),
            Self::Bool => "a bool".into(),
            Self::Number => "a number".into(),
            Self::String => "a string".into(),
            Self::Component => "a component".into(),
            Self::List(element) => format!("a list{}", element.describe_elements()),
            Self::Set(element) => format!("a set{}", element.describe_elements()),
            Self::Map(element) => format!("a map{}", element.describe_elements()),
            Self::Tuple(_) => "a tuple".into(),
            Self::Object(_) => "an object".into(),
        }
    }

    /// ` of strings`, or nothing where elements may be anything.
    fn describe_elements(&self) -> String {
        let plural = match self {
            Self::Any => return String::new(),
            Self::Bool => "bools".into(),
            Self::Number => "numbers".into(),
            Self::String => "strings".into(),
            Self::Component => "components".into(),
            Self::List(element) => format!("lists{}", element.describe_elements()),
            Self::Set(element) => format!("sets{}", element.describe_elements()),
            Self::Map(element) => format!("maps{}", element.describe_elements()),
            Self::Tuple(_) => "tuples".into(),
            Self::Object(_) => "objects".into(),
        };
        format!(" of {plural}")
    }
}
