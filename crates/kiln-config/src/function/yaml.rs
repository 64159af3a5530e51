//! YAML: written in the one style that Terraform has, read in the 1.2 core schema with the old
//! spellings of bools (`yes`, `on`).

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{Args, Failure, Function, Param, Shape};
use crate::value::secret::{BuiltText, Escape, TextBuilder};
use crate::value::{Data, Key, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("yamldecode", &[Param::new("src", Shape::String)], Shape::Any, |args| {
        Decoder::new(args.text(0)?).document()
    }),
    Function::new(
        "yamlencode",
        &[Param::new("value", Shape::Any).nullable()],
        Shape::String,
        |args: &Args<'_>| encode(args.value(0)?).map(Value::from),
    ),
];

fn encode(value: &Value) -> Result<BuiltText, Failure> {
    let mut out = TextBuilder::default();
    write(value, 0, &mut out)?;
    out.push_str("\n");
    // A bare word at the top is closed, so that nothing can be appended to it.
    if matches!(value.data(), Data::Null(_) | Data::Bool(_) | Data::Number(_)) {
        out.push_str("...\n");
    }
    Ok(out.finish())
}

/// Writes from the current position on; further lines are indented by `indent`.
fn write(value: &Value, indent: usize, out: &mut TextBuilder) -> Result<(), Failure> {
    match value.data() {
        Data::String(text) => {
            write_text(text, indent, out);
            Ok(())
        }
        Data::Secret(text) => {
            // What JSON escapes stands the same in YAML's double quotes.
            out.push_str("\"");
            out.push_secret(&text.escaped(Escape::Json));
            out.push_str("\"");
            Ok(())
        }
        Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements)
            if !elements.is_empty() =>
        {
            for (index, element) in elements.iter().enumerate() {
                break_line(index, indent, out);
                out.push_str("- ");
                write(element, indent + 2, out)?;
            }
            Ok(())
        }
        Data::Map(_, entries) | Data::Object(entries) if !entries.is_empty() => {
            for (index, (key, value)) in entries.iter().enumerate() {
                break_line(index, indent, out);
                out.push_str(&quote(key));
                out.push_str(":");
                write_entry(value, indent, out)?;
            }
            Ok(())
        }
        // Empty collections and bare words look as in JSON.
        _ => {
            if let BuiltText::Plain(text) = super::json::encode(value)? {
                out.push_str(&text);
            }
            Ok(())
        }
    }
}

/// Sequences stand below their key at its own indentation, mappings two deeper.
fn write_entry(value: &Value, indent: usize, out: &mut TextBuilder) -> Result<(), Failure> {
    let inner = match value.data() {
        Data::List(_, elements) | Data::Set(_, elements) | Data::Tuple(elements)
            if !elements.is_empty() =>
        {
            Some(indent)
        }
        Data::Map(_, entries) | Data::Object(entries) if !entries.is_empty() => Some(indent + 2),
        _ => None,
    };
    if let Some(inner) = inner {
        break_line(1, inner, out);
        return write(value, inner, out);
    }
    out.push_str(" ");
    write(value, indent + 2, out)
}

fn break_line(index: usize, indent: usize, out: &mut TextBuilder) {
    if index > 0 {
        out.push_str(&format!("\n{:indent$}", ""));
    }
}

/// Text of several lines is a literal block where a block can hold it, else it is quoted.
fn write_text(text: &str, indent: usize, out: &mut TextBuilder) {
    let lines = text.contains('\n');
    let plain = text.chars().all(|char| char == '\n' || is_printable(char));
    let awkward = text.contains(" \n") || text.ends_with(' ');
    if !lines || !plain || awkward {
        return out.push_str(&quote(text));
    }
    let body = text.strip_suffix('\n');
    out.push_str("|");
    // The indentation has to be told where it cannot be seen.
    if text.starts_with([' ', '\n']) {
        out.push_str("2");
    }
    out.push_str(match body {
        None => "-",
        Some(body) if body.is_empty() || body.ends_with('\n') => "+",
        Some(_) => "",
    });
    // At the top a block still has to be indented.
    let indent = indent.max(2);
    for line in body.unwrap_or(text).split('\n') {
        if line.is_empty() {
            out.push_str("\n");
        } else {
            out.push_str(&format!("\n{:indent$}{line}", ""));
        }
    }
}

/// What stands in the text as it is. Terraform escapes all beyond the basic plane.
fn is_printable(char: char) -> bool {
    !char.is_control()
        && u32::from(char) <= 0xffff
        && !matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\t' => quoted.push_str("\\t"),
            '\n' => quoted.push_str("\\n"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\r' => quoted.push_str("\\r"),
            '\u{1b}' => quoted.push_str("\\e"),
            '\u{85}' => quoted.push_str("\\N"),
            '\u{2028}' => quoted.push_str("\\L"),
            '\u{2029}' => quoted.push_str("\\P"),
            char if is_printable(char) => quoted.push(char),
            char => {
                let escape = match u32::from(char) {
                    code @ ..=0xff => format!("\\x{code:02X}"),
                    code @ ..=0xffff => format!("\\u{code:04X}"),
                    code => format!("\\U{code:08X}"),
                };
                quoted.push_str(&escape);
            }
        }
    }
    quoted.push('"');
    quoted
}

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 128;
/// The most nodes that a document stands for once its aliases are written out.
const MAX_NODES: usize = 1_000_000;

struct Decoder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Values with an anchor and the number of their nodes.
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

impl<'a> Decoder<'a> {
    fn new(text: &'a str) -> Self {
        Self { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 }
    }

    fn next(&mut self) -> Result<Event<'a>, Failure> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(malformed(&error)),
            None => Ok(Event::StreamEnd),
        }
    }

    fn document(mut self) -> Result<Value, Failure> {
        let mut value = None;
        loop {
            match self.next()? {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if value.is_some() => {
                    return Err(Failure::of(0, "it has more than one document"));
                }
                Event::DocumentStart(_) => {
                    let first = self.next()?;
                    value = Some(self.node(first, 0)?);
                }
                _ => {}
            }
        }
        value.ok_or_else(|| Failure::of(0, "it has no document"))
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Value, Failure> {
        let before = self.nodes;
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return Err(Failure::of(0, format!("it nests deeper than {MAX_DEPTH}")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(&text, style, tag.as_deref())?, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let (value, nodes) = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    Failure::of(0, "an alias stands inside the very value that it names")
                })?;
                self.nodes += nodes;
                (value, 0)
            }
            _ => return Err(Failure::of(0, "a value is missing")),
        };
        if self.nodes > MAX_NODES {
            return Err(Failure::of(0, format!("it stands for more than {MAX_NODES} values")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), self.nodes - before));
        }
        Ok(value)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Failure> {
        let mut elements = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::tuple(elements)),
                event => elements.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Failure> {
        let mut entries: BTreeMap<Key, Value> = BTreeMap::new();
        let mut inherited: BTreeMap<Key, Value> = BTreeMap::new();
        loop {
            let event = self.next()?;
            let merge = match &event {
                Event::MappingEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, ..) => text == "<<",
                _ => false,
            };
            let key = self.node(event, depth + 1)?;
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if merge {
                inherit(&mut inherited, &value)?;
            } else {
                entries.insert(key_text(&key)?, value);
            }
        }
        inherited.append(&mut entries);
        Ok(Value::object(inherited))
    }
}

/// Takes over what `<<` names: a mapping, or several of which earlier ones win.
fn inherit(inherited: &mut BTreeMap<Key, Value>, source: &Value) -> Result<(), Failure> {
    let sources = source.as_elements().unwrap_or(std::slice::from_ref(source));
    for source in sources {
        let Some(entries) = source.as_entries() else {
            return Err(Failure::of(0, "<< is not followed by a mapping"));
        };
        for (key, value) in entries {
            inherited.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(())
}

fn key_text(key: &Value) -> Result<Key, Failure> {
    match key.data() {
        Data::String(text) => Ok(text.clone()),
        Data::Number(number) => Ok(number.to_string().into()),
        Data::Bool(value) => Ok(value.to_string().into()),
        _ => Err(Failure::of(0, "a key is neither text, number nor bool")),
    }
}

fn malformed(error: &ScanError) -> Failure {
    let (line, column) = (error.marker().line(), error.marker().col() + 1);
    Failure::of(0, format!("it is not YAML: line {line}, column {column}: {}", error.info()))
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Failure> {
    let resolved = || if style == ScalarStyle::Plain { plain(text) } else { Ok(text.into()) };
    let Some(tag) = tag else { return resolved() };
    let wanted = match tag.suffix.as_str() {
        "" if tag.handle == "!" => return Ok(text.into()),
        "str" | "binary" if tag.is_yaml_core_schema() => return Ok(text.into()),
        "null" if tag.is_yaml_core_schema() => return Ok(Value::null()),
        "int" | "float" if tag.is_yaml_core_schema() => "a number",
        "bool" if tag.is_yaml_core_schema() => "a bool",
        "timestamp" if tag.is_yaml_core_schema() => return resolved(),
        _ => return Err(Failure::of(0, format!("the tag {tag} is not supported"))),
    };
    let value = plain(text)?;
    match value.data() {
        Data::Number(_) if wanted == "a number" => Ok(value),
        Data::Bool(_) if wanted == "a bool" => Ok(value),
        _ => Err(Failure::of(0, format!("\"{text}\" is tagged as {wanted}, which it is not"))),
    }
}

/// What an unquoted word stands for.
fn plain(text: &str) -> Result<Value, Failure> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::null(),
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            true.into()
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            false.into()
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => {
            return Err(Failure::of(
                0,
                format!("{text} is not a number that can be computed with"),
            ));
        }
        _ => number(text)?.unwrap_or_else(|| date(text).unwrap_or_else(|| text.into())),
    })
}

fn number(text: &str) -> Result<Option<Value>, Failure> {
    let (base, digits) = match text.split_at_checked(2) {
        Some(("0x", digits)) => (16, digits),
        Some(("0o", digits)) => (8, digits),
        _ => (10, text),
    };
    let begins = digits
        .trim_start_matches(['+', '-'])
        .starts_with(|char: char| char.is_digit(base) || (char == '.' && base == 10));
    if !begins {
        return Ok(None);
    }
    if base != 10 {
        let integer = num_bigint::BigInt::parse_bytes(digits.as_bytes(), base);
        let plain = digits.chars().all(|char| char.is_digit(base));
        return Ok(match integer.filter(|_| plain) {
            Some(integer) => Some(crate::value::Number::integer(integer)?.into()),
            None => None,
        });
    }
    match text.parse::<crate::value::Number>() {
        Ok(number) => Ok(Some(number.into())),
        Err(crate::value::NumberError::Malformed) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A bare date is midnight in UTC.
fn date(text: &str) -> Option<Value> {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_date = lengths == [4, 2, 2] && parts.iter().all(digits);
    is_date.then(|| format!("{text}T00:00:00Z").into())
}
