//! Values, as an expression yields them: those of Terraform, and two of Kiln's own.
//!
//! A [`Value`] is immutable and cheap to clone. Besides what is known it can be *unknown* (with
//! the reason why it cannot be known before apply) or *null*, and it can be *sensitive*: never
//! shown, and neither is what is computed from it. Kiln adds [`SecretText`], text with secrets
//! in it that stand there by reference only, and [`Component`], a reference to a component.
//!
//! Strings are in Unicode normalization form C, as Terraform keeps them, so that equal-looking
//! text is equal.

pub mod constraint;
pub mod convert;
mod decimal;
mod display;
mod escape;
mod number;
mod order;
pub mod secret;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

pub use convert::ConvertError;
pub use number::{Number, NumberError};
pub use secret::{SecretText, SecretVersion};
pub use types::Type;

use secret::BuiltText;

/// The name of an attribute or the key of a map.
pub type Key = Arc<str>;

/// A value.
#[derive(Clone, Debug)]
pub struct Value {
    data: Data,
    sensitive: bool,
    depth: u16,
    nodes: u32,
}

/// What a value is, sensitivity aside.
#[derive(Clone, Debug)]
pub enum Data {
    /// Nothing, of a type.
    Null(Type),
    /// Something of a type that is known only after apply.
    Unknown(Type, Reason),
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text without a secret.
    String(Arc<str>),
    /// Text with a secret in it; such a value is always sensitive.
    Secret(SecretText),
    /// A reference to a component.
    Component(Component),
    /// Elements of one type.
    List(Type, Arc<Vec<Value>>),
    /// Distinct elements of one type, sorted.
    Set(Type, Arc<Vec<Value>>),
    /// Values of one type by key.
    Map(Type, Arc<BTreeMap<Key, Value>>),
    /// Elements of any types.
    Tuple(Arc<Vec<Value>>),
    /// Attributes of any types.
    Object(Arc<BTreeMap<Key, Value>>),
}

/// Why a value is not known before apply, such as `no lock yet`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason(Arc<str>);

impl Reason {
    /// A reason: a phrase, lower case, no full stop.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A reference to one component, or to one of those that `count` or `for_each` made.
///
/// Its attributes, such as `address`, are not in it: the evaluator asks the scope for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component {
    /// The kind, such as `server`.
    pub kind: Key,
    /// The name of the block.
    pub name: Key,
    /// Which one of several.
    pub instance: Option<InstanceKey>,
}

/// Which one of the components that a block with `count` or `for_each` makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceKey {
    /// `count.index`.
    Index(usize),
    /// `each.key`.
    Key(Key),
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.name)?;
        match &self.instance {
            None => Ok(()),
            Some(InstanceKey::Index(index)) => write!(f, "[{index}]"),
            Some(InstanceKey::Key(key)) => write!(f, "[{key:?}]"),
        }
    }
}

impl From<Data> for Value {
    fn from(data: Data) -> Self {
        let sensitive = matches!(data, Data::Secret(_));
        let (mut below, mut nodes) = (None, 1_u32);
        let mut count = |child: &Value| {
            below = below.max(Some(child.depth));
            nodes = nodes.saturating_add(child.nodes);
        };
        match &data {
            Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements) => {
                elements.iter().for_each(&mut count);
            }
            Data::Map(_, entries) | Data::Object(entries) => entries.values().for_each(&mut count),
            _ => {}
        }
        let depth = below.map_or(0, |depth: u16| depth.saturating_add(1));
        Self { data, sensitive, depth, nodes }
    }
}

impl Value {
    /// `null` of no type in particular.
    pub fn null() -> Self {
        Data::Null(Type::Any).into()
    }

    /// A value of a type that is known only after apply.
    pub fn unknown(ty: Type, reason: Reason) -> Self {
        Data::Unknown(ty, reason).into()
    }

    /// Text, brought into normalization form C.
    pub fn string(text: impl AsRef<str> + Into<Arc<str>>) -> Self {
        let plain = text.as_ref();
        if plain.is_ascii() || is_nfc_quick(plain.chars()) == IsNormalized::Yes {
            return Data::String(text.into()).into();
        }
        Data::String(plain.nfc().collect::<String>().into()).into()
    }

    /// Text that contains a secret.
    pub fn secret(text: SecretText) -> Self {
        Data::Secret(text).into()
    }

    /// A reference to a component.
    pub fn component(component: Component) -> Self {
        Data::Component(component).into()
    }

    /// A tuple.
    pub fn tuple(elements: Vec<Self>) -> Self {
        Data::Tuple(Arc::new(elements)).into()
    }

    /// An object.
    pub fn object(attributes: BTreeMap<Key, Self>) -> Self {
        Data::Object(Arc::new(attributes)).into()
    }

    /// A list; the elements are of type `element`.
    pub fn list(element: Type, elements: Vec<Self>) -> Self {
        Data::List(element, Arc::new(elements)).into()
    }

    /// A map; the values are of type `element`.
    pub fn map(element: Type, entries: BTreeMap<Key, Self>) -> Self {
        Data::Map(element, Arc::new(entries)).into()
    }

    /// A set; the elements are of type `element`.
    ///
    /// A set cannot tell apart what is unknown, so one with an unknown element is unknown. A
    /// sensitive element makes the whole sensitive, since its place would give it away.
    pub fn set(element: Type, mut elements: Vec<Self>) -> Self {
        let sensitive = elements.iter().any(Self::contains_sensitive);
        if let Some(reason) = elements.iter().find_map(Self::first_unknown) {
            let unknown = Self::unknown(Type::set(element), reason.clone());
            return unknown.with_sensitive(sensitive);
        }
        elements.sort_by(order::compare);
        elements.dedup_by(|a, b| order::compare(a, b).is_eq());
        Self::from(Data::Set(element, Arc::new(elements))).with_sensitive(sensitive)
    }

    /// What it is.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// How many collections stand around its innermost value; 0 where it is no collection or an
    /// empty one.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// How many values it stands for, itself and all inside it. What is shared counts as often as
    /// it occurs: that many steps does it take to walk through.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Whether this value itself is marked as sensitive; what it contains may be all the same.
    pub fn is_sensitive(&self) -> bool {
        self.sensitive
    }

    /// The same value, sensitive if it was or if `sensitive`.
    #[must_use]
    pub fn with_sensitive(mut self, sensitive: bool) -> Self {
        self.sensitive |= sensitive;
        self
    }

    /// The same value without the mark; `None` where it contains a secret and has to keep it.
    #[must_use]
    pub fn without_sensitive(self) -> Option<Self> {
        match self.data {
            Data::Secret(_) => None,
            data => Some(Self { data, sensitive: false, depth: self.depth, nodes: self.nodes }),
        }
    }

    /// Whether this value or any inside it is sensitive.
    pub fn contains_sensitive(&self) -> bool {
        self.sensitive || self.any_child(Self::contains_sensitive)
    }

    /// The reason of the first unknown value in it, this one included.
    pub fn first_unknown(&self) -> Option<&Reason> {
        match &self.data {
            Data::Unknown(_, reason) => Some(reason),
            Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements) => {
                elements.iter().find_map(Self::first_unknown)
            }
            Data::Map(_, entries) | Data::Object(entries) => {
                entries.values().find_map(Self::first_unknown)
            }
            _ => None,
        }
    }

    /// The first secret in it, if there is one.
    pub fn first_secret(&self) -> Option<&SecretVersion> {
        match &self.data {
            Data::Secret(text) => text.versions().next(),
            Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements) => {
                elements.iter().find_map(Self::first_secret)
            }
            Data::Map(_, entries) | Data::Object(entries) => {
                entries.values().find_map(Self::first_secret)
            }
            _ => None,
        }
    }

    fn any_child(&self, test: fn(&Self) -> bool) -> bool {
        match &self.data {
            Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements) => {
                elements.iter().any(test)
            }
            Data::Map(_, entries) | Data::Object(entries) => entries.values().any(test),
            _ => false,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.data, Data::Null(_))
    }

    /// Whether this value itself is unknown, and why; what it contains may be all the same.
    pub fn unknown_reason(&self) -> Option<&Reason> {
        match &self.data {
            Data::Unknown(_, reason) => Some(reason),
            _ => None,
        }
    }

    /// The bool, if it is one and known.
    pub fn as_bool(&self) -> Option<bool> {
        match self.data {
            Data::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The number, if it is one and known.
    pub fn as_number(&self) -> Option<&Number> {
        match &self.data {
            Data::Number(value) => Some(value),
            _ => None,
        }
    }

    /// The text, if it is text, known, and without a secret.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(value) => Some(value),
            _ => None,
        }
    }

    /// The component, if it is a reference to one.
    pub fn as_component(&self) -> Option<&Component> {
        match &self.data {
            Data::Component(component) => Some(component),
            _ => None,
        }
    }

    /// The elements of a known list, set or tuple.
    pub fn as_elements(&self) -> Option<&[Self]> {
        match &self.data {
            Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements) => {
                Some(elements)
            }
            _ => None,
        }
    }

    /// The entries of a known map or object.
    pub fn as_entries(&self) -> Option<&BTreeMap<Key, Self>> {
        match &self.data {
            Data::Map(_, entries) | Data::Object(entries) => Some(entries),
            _ => None,
        }
    }

    /// The type. Of tuples and objects it is put together on each call.
    pub fn ty(&self) -> Type {
        match &self.data {
            Data::Null(ty) | Data::Unknown(ty, _) => ty.clone(),
            Data::Bool(_) => Type::Bool,
            Data::Number(_) => Type::Number,
            Data::String(_) | Data::Secret(_) => Type::String,
            Data::Component(_) => Type::Component,
            Data::List(element, _) => Type::list(element.clone()),
            Data::Set(element, _) => Type::set(element.clone()),
            Data::Map(element, _) => Type::map(element.clone()),
            Data::Tuple(elements) => Type::Tuple(elements.iter().map(Self::ty).collect()),
            Data::Object(attributes) => {
                let types = attributes.iter().map(|(key, value)| (key.clone(), value.ty()));
                Type::Object(Arc::new(types.collect()))
            }
        }
    }

    /// What it is called in a message: `a string`, `null`, `an object`, `server.web`.
    pub fn describe(&self) -> String {
        match &self.data {
            Data::Null(_) => "null".into(),
            Data::Unknown(Type::Any, _) => "a value not known yet".into(),
            Data::Tuple(_) => "a list".into(),
            Data::Component(component) => component.to_string(),
            _ => self.ty().describe(),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Data::Bool(value).into()
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Self {
        Data::Number(value).into()
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Number::from(value).into()
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Number::from(value).into()
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::string(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::string(value)
    }
}

impl From<Arc<str>> for Value {
    fn from(value: Arc<str>) -> Self {
        Self::string(value)
    }
}

impl From<BuiltText> for Value {
    fn from(value: BuiltText) -> Self {
        match value {
            BuiltText::Plain(text) => text.into(),
            BuiltText::Secret(text) => Self::secret(text),
        }
    }
}

/// Equal in type and content; the marks do not count. Unknown values of one type are equal.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        order::same(self, other)
    }
}
