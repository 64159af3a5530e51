//! `image` blocks: recipes.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::spec::image::{Base, Image, ImageIdentity, Inputs, Recipe, Step};

use super::Reader;
use super::nested::Nested;
use super::paths::{absolute_path, is_canonical, writable};
use crate::diagnostic::Diagnostic;
use crate::stack::base::base;
use crate::stack::decode::Field;
use crate::syntax::span::Span;

const MAX_ID: u32 = 65_533;

pub(super) fn image(reader: &Reader<'_>) -> Option<Image> {
    let recipe = recipe(reader)?;
    let locked = reader.world.outside.surroundings.locked_inputs(reader.id, &recipe);
    let inputs = locked.map_or(Inputs::Unlocked, Inputs::Locked);
    Some(Image { identity: ImageIdentity { recipe, inputs } })
}

fn recipe(reader: &Reader<'_>) -> Option<Recipe> {
    let base = reader.required("base", base);
    let is_scratch = base == Some(Base::Scratch);
    let packages = reader.read_or("packages", BTreeSet::new(), |f| packages(f, is_scratch));
    let steps = steps(reader);
    let env = reader.read_or("env", BTreeMap::new(), |field| {
        let env = field.string_map()?;
        check_environment_names(field, env.keys())?;
        Some(env)
    });
    let workdir = reader.read_or("workdir", None, |field| absolute_path(field).map(Some));
    let user = reader.read_or("user", None, |field| user(field).map(Some));
    let entrypoint = reader.read_or("entrypoint", Vec::new(), |f| f.strings());
    let writable = reader.read_or("writable", BTreeMap::new(), writable);
    let labels = reader.read_or("labels", BTreeMap::new(), |f| f.string_map());
    Some(Recipe {
        base: base?,
        packages: packages?,
        steps: steps?,
        env: env?,
        workdir: workdir?,
        user: user?,
        entrypoint: entrypoint?,
        writable: writable?,
        labels: labels?,
    })
}

/// Names of Debian packages (Debian policy 5.6.1).
fn packages(field: &Field<'_>, is_scratch: bool) -> Option<BTreeSet<String>> {
    let elements = field.elements()?;
    if is_scratch && !elements.is_empty() {
        let diagnostic = Diagnostic::error(field.span(), "an image from scratch() has no packages")
            .with_help("start from debian(\"bookworm\"), or bring the files with `copy`");
        field.report(diagnostic);
        return None;
    }
    let read = |element: &Field<'_>| {
        let name = element.string()?;
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
        if first && name.len() >= 2 && bytes.all(fits) {
            return Some(name);
        }
        let refusal = element.refusal("the name of a package, such as \"nginx-light\"");
        element.report(if name.contains(['=', ':', '/']) {
            refusal.with_help("versions are not written here: kiln.lock holds them")
        } else {
            refusal
        });
        None
    };
    let read: Vec<Option<String>> = elements.iter().map(read).collect();
    read.into_iter().collect()
}

/// A user as an instance runs: a name or `uid[:gid]`.
pub(super) fn user(field: &Field<'_>) -> Option<String> {
    account(field, "the name of a user, or uid or uid:gid")
}

fn account(field: &Field<'_>, expected: &str) -> Option<String> {
    let text = field.string()?;
    let part = |part: &str| {
        let number = part.parse::<u32>().is_ok_and(|id| id <= MAX_ID);
        let mut bytes = part.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        part.len() <= 32 && (number || (first && bytes.all(rest)))
    };
    let fits = match text.split_once(':') {
        Some((user, group)) => part(user) && part(group),
        None => part(&text),
    };
    if fits { Some(text) } else { field.refuse(expected) }
}

/// Names of environment variables: not empty, without `=`.
pub(super) fn check_environment_names<'n>(
    field: &Field<'_>,
    mut names: impl Iterator<Item = &'n String>,
) -> Option<()> {
    let wrong = names.find(|name| name.is_empty() || name.contains(['=', '\0']));
    let Some(wrong) = wrong else { return Some(()) };
    let summary = format!("{wrong:?} cannot be the name of an environment variable");
    field.report(Diagnostic::error(field.span(), summary));
    None
}

/// The steps, in the order in which they stand.
fn steps(reader: &Reader<'_>) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut complete = true;
    reader.each_block(|nested| match step(nested) {
        Some(step) => steps.push(step),
        None => complete = false,
    });
    complete.then_some(steps)
}

fn step(nested: &Nested<'_>) -> Option<Step> {
    let reader = &nested.reader;
    let Some((label, span)) = &nested.label else {
        let summary = format!("this `{}` block has no label", nested.kind);
        let diagnostic = Diagnostic::error(reader.header, summary);
        reader.world.report(diagnostic.with_label(match nested.kind {
            "copy" => "expected the path in the stack's directory: `copy \"site/\" {`",
            "user" => "expected the user's name: `user \"app\" {`",
            _ => "expected the path in the image",
        }));
        return None;
    };
    match nested.kind {
        "copy" => copy(reader, label, *span),
        "user" => made_user(reader, label, *span),
        _ if !is_canonical(label) || label == "/" => {
            let summary = format!("{label:?} is not a path in the image");
            let expected = "expected an absolute path without `.`, `..` or a final `/`";
            reader.world.report(Diagnostic::error(*span, summary).with_label(expected));
            None
        }
        "file" => {
            let content = reader.required("content", |f| f.string());
            let (owner, mode) = attributes(reader)?;
            Some(Step::File { path: label.clone(), content: content?, owner, mode })
        }
        "directory" => {
            let (owner, mode) = attributes(reader)?;
            Some(Step::Directory { path: label.clone(), owner, mode })
        }
        _ => {
            let target = reader.required("target", |f| f.string())?;
            Some(Step::Symlink { path: label.clone(), target })
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
    let digest = match reader.world.outside.surroundings.copied(from) {
        Ok(digest) => Some(digest),
        Err(error) => {
            reader.world.report(Diagnostic::error(span, error));
            None
        }
    };
    let (owner, mode) = attributes?;
    Some(Step::Copy { from: from.to_owned(), to: to?, digest: digest?, owner, mode })
}

fn made_user(reader: &Reader<'_>, name: &str, span: Span) -> Option<Step> {
    let uid = reader.read("uid", |field| field.integer(1..=MAX_ID));
    let home = reader.read("home", absolute_path);
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if !first || !bytes.all(rest) || name.len() > 32 {
        let diagnostic = Diagnostic::error(span, format!("{name:?} cannot be a user's name"))
            .with_label("expected lower-case letters, digits, `-` and `_`, at most 32");
        reader.world.report(diagnostic);
        return None;
    }
    Some(Step::User { name: name.to_owned(), uid: uid.ok()?, home: home.ok()? })
}

/// `owner` and `mode`.
fn attributes(reader: &Reader<'_>) -> Option<(Option<String>, Option<u32>)> {
    let owner = reader.read("owner", |f| account(f, "a user, or user:group, by name or number"));
    let mode = reader.read("mode", mode);
    Some((owner.ok()?, mode.ok()?))
}

/// Permission bits in octal, as a string.
fn mode(field: &Field<'_>) -> Option<u32> {
    const EXPECTED: &str = "permission bits in octal as a string, such as \"0644\"";
    let Some(text) = field.value().as_str() else { return field.refuse(EXPECTED) };
    let octal = (3..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Some(mode),
        _ => field.refuse(EXPECTED),
    }
}
