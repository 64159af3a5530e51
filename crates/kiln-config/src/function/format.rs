//! `format` and `formatlist`: the verbs of Go's `fmt` that Terraform has.
//!
//! A directive is `%[flags][width][.precision][[index]]verb`. Flags: space, `+`, `-`, `#`, `0`.
//! Verbs: `v s q t d b o x X e E f g G` and `%`.

use super::number_format::{self, Float};
use super::{Args, Failure, Function, Param, Shape};
use crate::value::convert::convert;
use crate::value::secret::{BuiltText, SecretText, TextBuilder};
use crate::value::{Data, Type, Value};

const FORMAT: Param = Param::new("format", Shape::String);
const REST: Param = Param::new("args", Shape::Any).nullable();

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("format", &[FORMAT], Shape::String, |args| {
        render(args.text(0)?, args.rest(1)).map(Value::from)
    })
    .variadic(REST),
    Function::new("formatlist", &[FORMAT], Shape::Strings, formatlist).variadic(REST),
];

/// The widest field and the highest precision.
const MAX_WIDTH: usize = 1_000;
/// The longest text that is made, in bytes.
const MAX_TEXT: usize = 64 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Directive {
    flags: String,
    pub(super) width: usize,
    pub(super) precision: Option<usize>,
    index: Option<usize>,
    verb: char,
    source: String,
}

impl Directive {
    /// Whether a flag is set.
    pub(super) fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    fn unsuitable(&self, wanted: &str) -> Failure {
        Failure::new(format!("\"{}\" needs {wanted}", self.source))
    }

    /// Pads text to the width, as characters are counted.
    pub(super) fn pad(&self, text: &str) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.has('-') {
            return format!("{text}{:missing$}", "");
        }
        let fill = if self.has('0') { "0" } else { " " };
        fill.repeat(missing) + text
    }
}

/// Applies a format to values.
fn render(format: &str, values: &[Value]) -> Result<BuiltText, Failure> {
    let mut text = TextBuilder::default();
    let mut rest = format;
    let mut next = 0;
    let mut highest = 0;
    while let Some(percent) = rest.find('%') {
        text.push_str(&rest[..percent]);
        if let Some(behind) = rest[percent..].strip_prefix("%%") {
            text.push_str("%");
            rest = behind;
            continue;
        }
        let (directive, behind) = parse(&rest[percent..])?;
        rest = behind;
        let index = directive.index.unwrap_or(next);
        let value = values.get(index).ok_or_else(|| {
            let (wanted, given) = (index + 1, values.len());
            let source = &directive.source;
            Failure::new(format!("\"{source}\" needs value {wanted}, but there are {given}"))
        })?;
        write(&mut text, &directive, value)
            .map_err(|failure| Failure { argument: Some(index + 1), ..failure })?;
        if text.len() > MAX_TEXT {
            return Err(Failure::new(format!("the text would be longer than {MAX_TEXT} bytes")));
        }
        next = index + 1;
        highest = highest.max(next);
    }
    if values.len() > highest {
        let message = format!("there are {} values, but the format uses {highest}", values.len());
        return Err(Failure::of(highest + 1, message));
    }
    text.push_str(rest);
    Ok(text.finish())
}

/// Parses one directive at the start of `text`; the rest comes with it.
fn parse(text: &str) -> Result<(Directive, &str), Failure> {
    let mut directive = Directive::default();
    let mut chars = text[1..].char_indices().map(|(at, char)| (at + 1, char)).peekable();
    while let Some((_, flag)) = chars.next_if(|(_, char)| "+- #0".contains(*char)) {
        directive.flags.push(flag);
    }
    directive.width = digits(&mut chars)?.unwrap_or_default();
    if chars.next_if(|(_, char)| *char == '.').is_some() {
        directive.precision = Some(digits(&mut chars)?.unwrap_or_default());
    }
    if chars.next_if(|(_, char)| *char == '[').is_some() {
        let position = digits(&mut chars)?.filter(|position| *position > 0);
        let closed = chars.next_if(|(_, char)| *char == ']').is_some();
        match position {
            Some(position) if closed => directive.index = Some(position - 1),
            _ => return Err(Failure::of(0, "a position is written as [1], counted from 1")),
        }
    }
    let Some((at, verb)) = chars.next() else {
        return Err(Failure::of(0, format!("\"{text}\" lacks a verb, such as s or d"))
            .with_help("write %% for a percent sign"));
    };
    let end = at + verb.len_utf8();
    text[..end].clone_into(&mut directive.source);
    if !"vsqtdboxXeEfgG".contains(verb) {
        let message = format!("\"{}\" is not a known verb", directive.source);
        return Err(Failure::of(0, message).with_help("write %% for a percent sign"));
    }
    directive.verb = verb;
    Ok((directive, &text[end..]))
}

fn digits(
    chars: &mut std::iter::Peekable<impl Iterator<Item = (usize, char)>>,
) -> Result<Option<usize>, Failure> {
    let mut number = None;
    while let Some((_, digit)) = chars.next_if(|(_, char)| char.is_ascii_digit()) {
        let digit = digit.to_digit(10).map_or(0, |digit| digit as usize);
        let value = number.unwrap_or(0_usize) * 10 + digit;
        if value > MAX_WIDTH {
            return Err(Failure::of(0, format!("a width or precision is at most {MAX_WIDTH}")));
        }
        number = Some(value);
    }
    Ok(number)
}

fn write(text: &mut TextBuilder, directive: &Directive, value: &Value) -> Result<(), Failure> {
    match (value.data(), directive.verb) {
        (Data::Secret(secret), 's' | 'v') => push_secret(text, directive, secret),
        (_, 'v') if directive.has('#') => push_json(text, directive, value),
        (Data::Null(_), 'v') => {
            text.push_str(&directive.pad("null"));
            Ok(())
        }
        (Data::Null(_), _) => Err(directive.unsuitable("a value that is not null")),
        (data, 'v') => {
            let verb = match data {
                Data::Bool(_) => 't',
                Data::Number(_) => 'g',
                Data::String(_) => 's',
                _ => return push_json(text, directive, value),
            };
            // Of what else a directive says, only the width counts for this verb.
            let flags = directive.flags.replace(['+', ' '], "");
            let plain = Directive { verb, flags, precision: None, ..directive.clone() };
            write(text, &plain, value)
        }
        (_, 's' | 'q') => push_text(text, directive, value),
        (_, 't') => {
            let value = convert(value, &Type::Bool).map_err(|_| directive.unsuitable("a bool"))?;
            let value = value.as_bool().ok_or_else(|| directive.unsuitable("a bool"))?;
            // Terraform gives no width to bools.
            text.push_str(&value.to_string());
            Ok(())
        }
        _ => push_number(text, directive, value),
    }
}

fn push_json(text: &mut TextBuilder, directive: &Directive, value: &Value) -> Result<(), Failure> {
    match super::json::encode(value)? {
        BuiltText::Plain(json) => text.push_str(&directive.pad(&json)),
        BuiltText::Secret(json) => push_secret(text, directive, &json)?,
    }
    Ok(())
}

fn push_secret(
    text: &mut TextBuilder,
    directive: &Directive,
    secret: &SecretText,
) -> Result<(), Failure> {
    if directive.width > 0 || directive.precision.is_some() {
        return Err(directive.unsuitable("a value without secrets, whose length can be known"));
    }
    text.push_secret(secret);
    Ok(())
}

fn push_text(text: &mut TextBuilder, directive: &Directive, value: &Value) -> Result<(), Failure> {
    let value = convert(value, &Type::String).map_err(|_| directive.unsuitable("a string"))?;
    let whole = super::args::text_of(&value, 0)?;
    if directive.verb == 'q' {
        text.push_str(&directive.pad(&super::json::quote(whole)));
        return Ok(());
    }
    let cut = directive.precision.and_then(|length| whole.char_indices().nth(length));
    text.push_str(&directive.pad(cut.map_or(whole, |(end, _)| &whole[..end])));
    Ok(())
}

fn push_number(
    text: &mut TextBuilder,
    directive: &Directive,
    value: &Value,
) -> Result<(), Failure> {
    let value = convert(value, &Type::Number).map_err(|_| directive.unsuitable("a number"))?;
    let number = value.as_number().ok_or_else(|| directive.unsuitable("a number"))?;
    let float = match directive.verb {
        'e' => Float::Scientific,
        'E' => Float::UpperScientific,
        'f' => Float::Plain,
        'g' => Float::Shorter,
        'G' => Float::UpperShorter,
        verb => {
            let integer =
                number.to_integer().ok_or_else(|| directive.unsuitable("a whole number"))?;
            text.push_str(&number_format::integer(directive, verb, &integer));
            return Ok(());
        }
    };
    text.push_str(&number_format::float(directive, float, number));
    Ok(())
}

/// One text for each position of the lists among the arguments; what is no list is repeated.
fn formatlist(args: &Args<'_>) -> Result<Value, Failure> {
    let (format, values) = (args.text(0)?, args.rest(1));
    let mut length = None;
    for (index, value) in values.iter().enumerate() {
        let Some(elements) = value.as_elements() else { continue };
        match length {
            Some((first, expected)) if expected != elements.len() => {
                let message = format!(
                    "list {} has {} elements, but list {} has {expected}",
                    index + 1,
                    elements.len(),
                    first + 1
                );
                return Err(Failure::of(index + 1, message));
            }
            Some(_) => {}
            None => length = Some((index, elements.len())),
        }
    }
    let count = length.map_or(1, |(_, count)| count);
    let row = |position: usize| {
        let row: Vec<Value> = values
            .iter()
            .map(|value| value.as_elements().map_or(value, |elements| &elements[position]).clone())
            .collect();
        render(format, &row).map(Value::from)
    };
    let rows = (0..count).map(row).collect::<Result<_, _>>()?;
    Ok(Value::list(Type::String, rows))
}
