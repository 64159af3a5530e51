//! The arguments of a call, as the body of a function sees them, and how it fails.

use std::collections::BTreeMap;

use super::directory::Files;
use crate::value::convert::ConvertError;
use crate::value::{Data, Key, Number, NumberError, SecretVersion, Value};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which argument is to blame, from 0.
    pub argument: Option<usize>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
}

impl Failure {
    /// The call as a whole failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { argument: None, message: message.into(), help: None }
    }

    /// It failed because of an argument, counted from 0.
    pub fn of(argument: usize, message: impl Into<String>) -> Self {
        Self { argument: Some(argument), message: message.into(), help: None }
    }

    /// Says a way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// It failed because it would need the text of a secret.
    pub(super) fn secret(argument: usize, secret: &SecretVersion) -> Self {
        let message = format!(
            "it needs the text of secret.{}, which is never read while a stack is evaluated",
            secret.secret
        );
        Self::of(argument, message)
            .with_help("secrets can be put into text with templates, join, format and jsonencode")
    }
}

impl From<NumberError> for Failure {
    fn from(error: NumberError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        Self { argument: None, message: error.to_string(), help: error.help }
    }
}

/// The arguments of a call: counted, converted to the parameters' types, known and not null
/// unless the function says otherwise.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    values: &'a [Value],
    files: &'a dyn Files,
}

impl<'a> Args<'a> {
    pub(super) fn new(values: &'a [Value], files: &'a dyn Files) -> Self {
        Self { values, files }
    }

    /// All of them.
    pub(super) fn all(&self) -> &'a [Value] {
        self.values
    }

    /// Those from `index` on.
    pub(super) fn rest(&self, index: usize) -> &'a [Value] {
        self.values.get(index..).unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The files that the call may read.
    pub(super) fn files(&self) -> &'a dyn Files {
        self.files
    }

    /// An argument, if it is given.
    pub(super) fn get(&self, index: usize) -> Option<&'a Value> {
        self.values.get(index)
    }

    /// An argument.
    pub(super) fn value(&self, index: usize) -> Result<&'a Value, Failure> {
        self.get(index).ok_or_else(|| Failure::of(index, "it is missing"))
    }

    /// An argument that is text without a secret.
    pub(super) fn text(&self, index: usize) -> Result<&'a str, Failure> {
        text_of(self.value(index)?, index)
    }

    /// An argument that is a number.
    pub(super) fn number(&self, index: usize) -> Result<&'a Number, Failure> {
        let value = self.value(index)?;
        value.as_number().ok_or_else(|| wrong(index, "a number", value))
    }

    /// An argument that is a whole number of moderate size.
    pub(super) fn whole(&self, index: usize) -> Result<i64, Failure> {
        let number = self.number(index)?;
        number.to_i64().ok_or_else(|| {
            let bound = if number.is_whole() { " below 2^63" } else { "" };
            Failure::of(index, format!("a whole number{bound} is required, not {number}"))
        })
    }

    /// An argument that is a list, set or tuple.
    pub(super) fn elements(&self, index: usize) -> Result<&'a [Value], Failure> {
        let value = self.value(index)?;
        value.as_elements().ok_or_else(|| wrong(index, "a list", value))
    }

    /// An argument that is a list or tuple, whose elements have positions.
    pub(super) fn sequence(&self, index: usize) -> Result<&'a [Value], Failure> {
        let value = self.value(index)?;
        match value.data() {
            Data::List(_, elements) | Data::Tuple(elements) => Ok(elements),
            Data::Set(..) => Err(wrong(index, "a list", value)
                .with_help("the elements of a set have no positions; tolist() puts them in order")),
            _ => Err(wrong(index, "a list", value)),
        }
    }

    /// An argument that is a map or object.
    pub(super) fn entries(&self, index: usize) -> Result<&'a BTreeMap<Key, Value>, Failure> {
        let value = self.value(index)?;
        value.as_entries().ok_or_else(|| wrong(index, "a map", value))
    }
}

/// The text of a value that belongs to argument `index`.
pub(super) fn text_of(value: &Value, index: usize) -> Result<&str, Failure> {
    match value.data() {
        Data::String(text) => Ok(text),
        Data::Secret(text) => match text.versions().next() {
            Some(secret) => Err(Failure::secret(index, secret)),
            None => Err(wrong(index, "a string", value)),
        },
        _ => Err(wrong(index, "a string", value)),
    }
}

pub(super) fn wrong(index: usize, wanted: &str, value: &Value) -> Failure {
    Failure::of(index, format!("{wanted} is required, not {}", value.describe()))
}
