//! The functions that expressions call: those a Terraform user reaches for.
//!
//! A [`Function`] is a row of a table: its parameters, the type of its result and its body. What
//! is common to all of them happens in [`Function::call`]: arguments are counted and converted,
//! null is refused where it has no meaning, and unknown and sensitive arguments make the result
//! so, without the body ever seeing them.
//!
//! A plan has to come out the same each time, so functions that read a clock, roll dice or look
//! beyond the stack's directory are not there; the table in `absent` says why and what to use.

mod absent;
mod args;
mod collection;
mod conversion;
mod csv;
mod date;
mod directory;
mod encoding;
mod filesystem;
mod format;
mod glob;
mod hash;
pub mod json;
mod lookup;
mod network;
mod number_format;
mod numeric;
mod pattern;
mod set;
mod text;
mod yaml;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use absent::why_absent;
use args::Args;
pub use args::Failure;
pub use directory::{Directory, FileError, Files};

use crate::value::convert::convert;
use crate::value::{Data, Type, Value};

/// The type of a parameter or a result, as far as it is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Whatever comes.
    Any,
    /// A bool.
    Bool,
    /// A number.
    Number,
    /// Text.
    String,
    /// A list of bools.
    Bools,
    /// A list of numbers.
    Numbers,
    /// A list of text.
    Strings,
    /// A list; its elements are brought to one type.
    List,
    /// A set; its elements are brought to one type.
    Set,
    /// A set of text.
    StringSet,
    /// A map; its values are brought to one type.
    Map,
    /// A map of lists of text.
    StringsMap,
}

impl Shape {
    /// The type that is meant.
    pub fn ty(self) -> Type {
        match self {
            Self::Any => Type::Any,
            Self::Bool => Type::Bool,
            Self::Number => Type::Number,
            Self::String => Type::String,
            Self::Bools => Type::list(Type::Bool),
            Self::Numbers => Type::list(Type::Number),
            Self::Strings => Type::list(Type::String),
            Self::List => Type::list(Type::Any),
            Self::Set => Type::set(Type::Any),
            Self::StringSet => Type::set(Type::String),
            Self::Map => Type::map(Type::Any),
            Self::StringsMap => Type::map(Type::list(Type::String)),
        }
    }
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    name: &'static str,
    shape: Shape,
    nullable: bool,
}

impl Param {
    const fn new(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, nullable: false }
    }

    /// Null is a value like another.
    const fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }
}

/// How far a function looks into its arguments, and so what unknown and sensitive ones make of
/// its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Into every corner: anything unknown or sensitive inside counts.
    Whole,
    /// It moves elements about without looking at them: only the arguments themselves count.
    Structure,
    /// The body sees to it.
    Raw,
}

type Body = fn(&Args<'_>) -> Result<Value, Failure>;

/// A function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    name: &'static str,
    params: &'static [Param],
    /// How many of the last parameters may be left out.
    optional: usize,
    /// What stands for any number of further arguments.
    variadic: Option<Param>,
    returns: Shape,
    reach: Reach,
    body: Body,
}

impl Function {
    const fn new(name: &'static str, params: &'static [Param], returns: Shape, body: Body) -> Self {
        Self { name, params, optional: 0, variadic: None, returns, reach: Reach::Whole, body }
    }

    const fn optional(self, count: usize) -> Self {
        Self { optional: count, ..self }
    }

    const fn variadic(self, param: Param) -> Self {
        Self { variadic: Some(param), ..self }
    }

    const fn structure(self) -> Self {
        Self { reach: Reach::Structure, ..self }
    }

    const fn raw(self) -> Self {
        Self { reach: Reach::Raw, ..self }
    }

    /// The function of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TABLE.get(name).copied()
    }

    /// The names of all functions, in no order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.keys().copied()
    }

    /// How it is called: `substr(str, offset, length)`.
    pub fn signature(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        let required = self.params.len() - self.optional;
        for (index, param) in self.params.iter().enumerate() {
            let mark = if index < required { "" } else { "?" };
            names.push(format!("{}{mark}", param.name));
        }
        if let Some(param) = &self.variadic {
            names.push(format!("{}...", param.name));
        }
        format!("{}({})", self.name, names.join(", "))
    }

    /// Calls it.
    pub fn call(&self, arguments: Vec<Value>, files: &dyn Files) -> Result<Value, Failure> {
        self.check_count(arguments.len())?;
        let mut sensitive = false;
        let mut unknown = None;
        let mut converted = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.iter().enumerate() {
            let argument = self.convert_argument(index, argument)?;
            let (reason, marked) = match self.reach {
                Reach::Whole => (argument.first_unknown(), argument.contains_sensitive()),
                Reach::Structure => (argument.unknown_reason(), argument.is_sensitive()),
                Reach::Raw => (None, false),
            };
            sensitive |= marked;
            if unknown.is_none() {
                unknown = reason.cloned();
            }
            converted.push(argument);
        }
        if let Some(reason) = unknown {
            return Ok(Value::unknown(self.returns.ty(), reason).with_sensitive(sensitive));
        }
        let result = (self.body)(&Args::new(&converted, files))
            .map_err(|failure| self.name_argument(conceal(failure, &converted)))?;
        Ok(result.with_sensitive(sensitive))
    }

    fn check_count(&self, count: usize) -> Result<(), Failure> {
        let required = self.params.len() - self.optional;
        if count < required {
            let missing = self.params[count].name;
            return Err(Failure::new(format!("argument \"{missing}\" is missing"))
                .with_help(format!("it is called as {}", self.signature())));
        }
        if self.variadic.is_none() && count > self.params.len() {
            let takes = self.params.len();
            let noun = if takes == 1 { "argument" } else { "arguments" };
            return Err(Failure::of(takes, format!("takes {takes} {noun}, not {count}"))
                .with_help(format!("it is called as {}", self.signature())));
        }
        Ok(())
    }

    fn param(&self, index: usize) -> Option<&Param> {
        self.params.get(index).or(self.variadic.as_ref())
    }

    /// Names the parameter that is to blame.
    fn name_argument(&self, failure: Failure) -> Failure {
        let Some(param) = failure.argument.and_then(|index| self.param(index)) else {
            return failure;
        };
        let message = format!("argument \"{}\": {}", param.name, failure.message);
        Failure { message, ..failure }
    }

    fn convert_argument(&self, index: usize, argument: &Value) -> Result<Value, Failure> {
        let Some(param) = self.param(index) else { return Ok(argument.clone()) };
        if argument.is_null() && !param.nullable {
            return Err(self.name_argument(Failure::of(index, "it must not be null")));
        }
        convert(argument, &param.shape.ty()).map_err(|error| {
            let failure = self.name_argument(Failure::of(index, error.to_string()));
            error.help.into_iter().fold(failure, Failure::with_help)
        })
    }
}

/// Takes out of a message what it could give away of a sensitive argument.
fn conceal(failure: Failure, arguments: &[Value]) -> Failure {
    let blamed = failure.argument.and_then(|index| arguments.get(index));
    let hidden = blamed.map_or_else(|| arguments.iter().any(hides_text), hides_text);
    if !hidden {
        return failure;
    }
    let message = "it does not fit; what is wrong is not shown, since it is sensitive".into();
    Failure { message, help: None, ..failure }
}

/// Whether a value is sensitive and yet legible; the text of a secret is not.
fn hides_text(value: &Value) -> bool {
    match value.data() {
        Data::Secret(_) => false,
        _ if value.is_sensitive() => true,
        Data::Map(_, entries) | Data::Object(entries) => entries.values().any(hides_text),
        _ => value.as_elements().unwrap_or_default().iter().any(hides_text),
    }
}

static TABLE: LazyLock<HashMap<&'static str, &'static Function>> = LazyLock::new(|| {
    let all = [
        collection::FUNCTIONS,
        conversion::FUNCTIONS,
        csv::FUNCTIONS,
        date::FUNCTIONS,
        encoding::FUNCTIONS,
        filesystem::FUNCTIONS,
        format::FUNCTIONS,
        hash::FUNCTIONS,
        json::FUNCTIONS,
        lookup::FUNCTIONS,
        network::FUNCTIONS,
        numeric::FUNCTIONS,
        pattern::FUNCTIONS,
        set::FUNCTIONS,
        text::FUNCTIONS,
        yaml::FUNCTIONS,
    ];
    all.into_iter().flatten().map(|function| (function.name, function)).collect()
});
