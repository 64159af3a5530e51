//! `secret` blocks.

use std::fmt;
use std::path::{Path, PathBuf};

use kiln_model::spec::secret::{Secret, SecretIdentity, SecretSource, SecretVersion};

use super::Reader;
use crate::diagnostic::Diagnostic;
use crate::stack::decode::Field;
use crate::stack::files::read_text;

/// The most random bytes of a generated secret.
const MAX_GENERATED_BYTES: u32 = 4096;
/// The longest value, in bytes.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// The ways in which a secret gets its value.
const SOURCES: [&str; 4] = ["generate", "value", "file", "env"];

/// The value of a secret. It is shown nowhere, in no message either.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// The text itself, for the store that encrypts it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(sensitive)")
    }
}

/// The spec, and the value unless it is to be generated.
pub(super) fn secret(reader: &Reader<'_>) -> Option<(Secret, Option<SecretValue>)> {
    let set: Vec<_> =
        reader.body.attributes.iter().filter(|a| SOURCES.contains(&&*a.name.name)).collect();
    let source = match &set[..] {
        [source] => &*source.name.name,
        [] if reader.body.broken => return None,
        [] => {
            let diagnostic = Diagnostic::error(reader.header, "this secret has no value")
                .with_label("expected one of generate, value, file, env")
                .with_help("`generate = 32` makes 32 random bytes");
            reader.world.report(diagnostic);
            return None;
        }
        [first, second, ..] => {
            let diagnostic = Diagnostic::error(second.name.span, "a secret has one value")
                .with_related(first.name.span, "the first one is here");
            reader.world.report(diagnostic);
            return None;
        }
    };
    let given = match source {
        "generate" => {
            let bytes = reader.required("generate", |f| f.integer(1..=MAX_GENERATED_BYTES))?;
            let version = reader.world.outside.surroundings.secret_version(reader.id, None);
            return Some((made(version, SecretSource::Generate(bytes)), None));
        }
        "value" => reader.required("value", |f| f.sensitive_string()),
        "file" => reader.required("file", |field| from_file(reader, field)),
        _ => reader.required("env", |field| from_environment(reader, field)),
    }?;
    if given.is_empty() || given.len() > MAX_VALUE_BYTES {
        let place = set.first().map_or(reader.header, |attribute| attribute.expr.span);
        let summary = "the value of this secret is empty or too long";
        let label = format!("expected 1 to {MAX_VALUE_BYTES} bytes, found {}", given.len());
        reader.world.report(Diagnostic::error(place, summary).with_label(label));
        return None;
    }
    let version =
        reader.world.outside.surroundings.secret_version(reader.id, Some(given.as_bytes()));
    Some((made(version, SecretSource::Given), Some(SecretValue(given))))
}

fn made(version: Option<String>, source: SecretSource) -> Secret {
    let version = version.map_or(SecretVersion::ToBeGenerated, SecretVersion::Known);
    Secret { identity: SecretIdentity { version }, source }
}

/// The content of a file, which may lie anywhere unless it is said where; one line break at its
/// end does not count.
fn from_file(reader: &Reader<'_>, field: &Field<'_>) -> Option<String> {
    let path = field.string()?;
    let inputs = &reader.world.outside.inputs;
    let full: PathBuf = inputs.directory.join(Path::new(&path));
    if let Some(allowed) = &inputs.secret_directories
        && !lies_in(&full, std::iter::once(&inputs.directory).chain(allowed))
    {
        let summary = format!("the file {path} is not where secrets may be taken from here");
        let diagnostic = Diagnostic::error(field.span(), summary)
            .with_label("outside of the stack's directory")
            .with_help("what follows a branch reads secrets of this machine below --secrets DIR");
        field.report(diagnostic);
        return None;
    }
    match read_text(&full) {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Some(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
        Err(error) => {
            field.report(Diagnostic::error(field.span(), error.summary));
            None
        }
    }
}

/// Whether a file lies in one of the directories, links being followed on both sides. What is not
/// there lies nowhere.
fn lies_in<'a>(file: &Path, mut directories: impl Iterator<Item = &'a PathBuf>) -> bool {
    let Ok(file) = file.canonicalize() else { return false };
    directories.any(|directory| directory.canonicalize().is_ok_and(|d| file.starts_with(d)))
}

fn from_environment(reader: &Reader<'_>, field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    let found = reader.world.outside.inputs.env.get(&name).filter(|value| !value.is_empty());
    if found.is_none() {
        let summary = format!("the environment variable {name} is not set");
        let diagnostic = Diagnostic::error(field.span(), summary)
            .with_label("the secret's value is taken from it")
            .with_help(format!("run `{name}=… kiln …`; an empty variable counts as unset"));
        field.report(diagnostic);
    }
    found.cloned()
}
