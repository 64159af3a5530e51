//! Values as `terraform console` prints them: what an `output` looks like to a person.

use std::fmt;

use super::{Data, Key, Type, Value};

/// Spaces by which what is nested is indented.
const INDENT: usize = 2;

/// The text looks like an expression that yields the value; sensitive values are
/// `(sensitive value)` and unknown ones `(known after apply: REASON)`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(self, 0, f)
    }
}

fn write_value(value: &Value, indent: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if value.is_sensitive() {
        return f.write_str("(sensitive value)");
    }
    match value.data() {
        Data::Null(ty) => match ty {
            Type::Any => f.write_str("null"),
            Type::Bool | Type::Number | Type::String => {
                write!(f, "to{ty}(null)")
            }
            Type::List(element) => write!(f, "tolist(null) /* of {} */", element.name()),
            Type::Set(element) => write!(f, "toset(null) /* of {} */", element.name()),
            Type::Map(element) => write!(f, "tomap(null) /* of {} */", element.name()),
            ty => write!(f, "null /* {} */", ty.name()),
        },
        Data::Unknown(_, reason) => write!(f, "(known after apply: {reason})"),
        Data::Bool(value) => write!(f, "{value}"),
        Data::Number(value) => write!(f, "{value}"),
        Data::String(text) => write_text(text, indent, f),
        Data::Secret(_) => f.write_str("(sensitive value)"),
        Data::Component(component) => write!(f, "{component}"),
        Data::Tuple(elements) => write_sequence(elements, indent, f),
        Data::List(_, elements) => write_wrapped("tolist", elements, indent, f),
        Data::Set(_, elements) => write_wrapped("toset", elements, indent, f),
        Data::Object(entries) => write_entries(entries.iter(), indent, f),
        Data::Map(_, entries) => {
            f.write_str("tomap(")?;
            write_entries(entries.iter(), indent, f)?;
            f.write_str(")")
        }
    }
}

fn write_wrapped(
    function: &str,
    elements: &[Value],
    indent: usize,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "{function}(")?;
    write_sequence(elements, indent, f)?;
    f.write_str(")")
}

fn write_sequence(elements: &[Value], indent: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if elements.is_empty() {
        return f.write_str("[]");
    }
    f.write_str("[")?;
    for element in elements {
        new_line(indent + INDENT, f)?;
        write_value(element, indent + INDENT, f)?;
        f.write_str(",")?;
    }
    new_line(indent, f)?;
    f.write_str("]")
}

fn write_entries<'a>(
    entries: impl ExactSizeIterator<Item = (&'a Key, &'a Value)>,
    indent: usize,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if entries.len() == 0 {
        return f.write_str("{}");
    }
    f.write_str("{")?;
    for (key, value) in entries {
        new_line(indent + INDENT, f)?;
        write_quoted(key, f)?;
        f.write_str(" = ")?;
        write_value(value, indent + INDENT, f)?;
    }
    new_line(indent, f)?;
    f.write_str("}")
}

fn new_line(indent: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "\n{:indent$}", "")
}

/// Text of one line is quoted; text of several is a heredoc under a delimiter it does not hold.
fn write_text(text: &str, indent: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if !text.contains('\n') {
        return write_quoted(text, f);
    }
    let mut delimiter = String::from("EOT");
    while text.lines().any(|line| line.trim() == delimiter) {
        delimiter.push('_');
    }
    f.write_str(if indent == 0 { "<<" } else { "<<-" })?;
    f.write_str(&delimiter)?;
    for line in text.split('\n') {
        new_line(indent, f)?;
        f.write_str(line)?;
    }
    new_line(indent, f)?;
    f.write_str(&delimiter)
}

/// Text in quotes, with what a reader could not see escaped.
fn write_quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write as _;
    f.write_str("\"")?;
    for char in text.chars() {
        match char {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\u{7}' => f.write_str("\\a")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{b}' => f.write_str("\\v")?,
            '\u{c}' => f.write_str("\\f")?,
            char if char.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(char))?,
            char if char.is_control() => write!(f, "\\u{:04x}", u32::from(char))?,
            char => f.write_char(char)?,
        }
    }
    f.write_str("\"")
}
