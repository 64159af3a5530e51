//! Blocks that change the tree of an image.

use std::collections::BTreeMap;

use kiln_model::digest::Digest;
use kiln_model::name::Kind;
use kiln_model::spec::image::Step;

use super::{MAX_ID, account, check_environment_names};
use crate::diagnostic::Diagnostic;
use crate::stack::decode::Field;
use crate::stack::lower::Reader;
use crate::stack::lower::nested::Nested;
use crate::stack::lower::paths::{absolute_path, is_canonical};
use crate::syntax::span::Span;

/// The step that a block stands for. Its label has been found.
pub(super) fn step(nested: &Nested<'_>, label: &str, span: Span) -> Option<Step> {
    let reader = &nested.reader;
    match nested.kind {
        "copy" => copy(reader, label, span),
        "user" => made_user(reader, label, span),
        "group" => made_group(reader, label, span),
        "run" => run(reader, label),
        _ if !is_canonical(label) || label == "/" => {
            let summary = format!("{label:?} is not a path in the image");
            let expected = "expected an absolute path without `.`, `..` or a final `/`";
            reader.world.report(Diagnostic::error(span, summary).with_label(expected));
            None
        }
        "file" => {
            let content = reader.required("content", |f| f.string());
            let (owner, mode) = attributes(reader)?;
            Some(Step::File { path: label.to_owned(), content: content?, owner, mode })
        }
        "directory" => {
            let (owner, mode) = attributes(reader)?;
            Some(Step::Directory { path: label.to_owned(), owner, mode })
        }
        _ => {
            let target = reader.required("target", |f| f.string())?;
            Some(Step::Symlink { path: label.to_owned(), target })
        }
    }
}

fn copy(reader: &Reader<'_>, from: &str, span: Span) -> Option<Step> {
    let to = reader.required("to", |field| {
        let to = field.string()?;
        let path = to.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(&to);
        if is_canonical(path) { Some(to) } else { field.refuse("an absolute path in the image") }
    });
    let attributes = attributes(reader);
    let image = reader.read("from", |field| {
        let image = field.built_from(Kind::Image, "image.builder")?;
        reader.note_base(&image.id, field.span());
        Some(image)
    });
    let Some(image) = image.ok()? else {
        let digest = copied(reader, from, span);
        let (owner, mode) = attributes?;
        return Some(Step::Copy { from: from.to_owned(), to: to?, digest: digest?, owner, mode });
    };
    if !is_canonical(from.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(from)) {
        let diagnostic = Diagnostic::error(span, format!("{from:?} is not a path in {}", image.id))
            .with_label("expected an absolute path without `.` or `..`");
        reader.world.report(diagnostic);
        return None;
    }
    let (owner, mode) = attributes?;
    Some(Step::Take { image, from: from.to_owned(), to: to?, owner, mode })
}

/// The digest of what is copied from the stack's directory.
fn copied(reader: &Reader<'_>, from: &str, span: Span) -> Option<Digest> {
    let digest = reader.world.outside.surroundings.copied(from);
    digest.map_err(|error| reader.world.report(Diagnostic::error(span, error))).ok()
}

fn made_user(reader: &Reader<'_>, name: &str, span: Span) -> Option<Step> {
    let uid = reader.read("uid", |field| field.integer(1..=MAX_ID));
    let home = reader.read("home", absolute_path);
    let name = account_name(reader, name, span, "user")?;
    Some(Step::User { name, uid: uid.ok()?, home: home.ok()? })
}

fn made_group(reader: &Reader<'_>, name: &str, span: Span) -> Option<Step> {
    let gid = reader.read("gid", |field| field.integer(1..=MAX_ID));
    let name = account_name(reader, name, span, "group")?;
    Some(Step::Group { name, gid: gid.ok()? })
}

fn account_name(reader: &Reader<'_>, name: &str, span: Span, what: &str) -> Option<String> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if first && bytes.all(rest) && name.len() <= 32 {
        return Some(name.to_owned());
    }
    let diagnostic = Diagnostic::error(span, format!("{name:?} cannot be a {what}'s name"))
        .with_label("expected lower-case letters, digits, `-` and `_`, at most 32");
    reader.world.report(diagnostic);
    None
}

fn run(reader: &Reader<'_>, label: &str) -> Option<Step> {
    let command = reader.required("command", command);
    let env = reader.read_or("env", BTreeMap::new(), environment);
    let user = reader.read("user", super::user);
    let workdir = reader.read("workdir", absolute_path);
    let network = reader.read_or("network", false, |field| field.boolean());
    Some(Step::Run {
        name: label.to_owned(),
        command: command?,
        env: env?,
        user: user.ok()?,
        workdir: workdir.ok()?,
        network: network?,
    })
}

/// A program and its arguments.
pub(super) fn command(field: &Field<'_>) -> Option<Vec<String>> {
    let command = field.strings()?;
    if command.first().is_some_and(|program| !program.is_empty()) {
        return Some(command);
    }
    field.refuse("a program and its arguments, such as [\"/usr/bin/app\", \"--check\"]")
}

/// Environment variables.
pub(super) fn environment(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
    let env = field.string_map()?;
    check_environment_names(field, env.keys())?;
    Some(env)
}

/// `owner` and `mode`.
fn attributes(reader: &Reader<'_>) -> Option<(Option<String>, Option<u32>)> {
    let owner = reader.read("owner", |f| account(f, "a user, or user:group, by name or number"));
    let mode = reader.read("mode", mode);
    Some((owner.ok()?, mode.ok()?))
}

/// Permission bits in octal, as a string.
pub(super) fn mode(field: &Field<'_>) -> Option<u32> {
    const EXPECTED: &str = "permission bits in octal as a string, such as \"0644\"";
    let Some(text) = field.value().as_str() else { return field.refuse(EXPECTED) };
    let octal = (3..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Some(mode),
        _ => field.refuse(EXPECTED),
    }
}
