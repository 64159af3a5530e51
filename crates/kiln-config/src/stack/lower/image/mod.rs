//! `image` blocks: recipes.

mod archive;
mod blocks;
mod check;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::spec::image::{
    Base, Image, ImageIdentity, ImagePolicy, Inputs, Keep, Pocket, Recipe, Repository, Scripts,
    Step, Surface,
};

use super::Reader;
use super::paths::{absolute_path, writable};
use crate::diagnostic::{Diagnostic, nearest};
use crate::stack::base::base;
use crate::stack::decode::Field;

/// The greatest number of a user or group.
const MAX_ID: u32 = 65_533;

pub(super) fn image(reader: &Reader<'_>) -> Option<Image> {
    let blocks = blocks::blocks(reader);
    let surface = reader.read_or("surface", Surface::default(), |field| {
        one_of(
            field,
            &[("warn", Surface::Warn), ("deny", Surface::Deny), ("allow", Surface::Allow)],
        )
    });
    // What is wrong with the attributes is told as well.
    let complete = blocks.is_some();
    let blocks::Blocks { steps, repositories, tests } = blocks.unwrap_or_default();
    let recipe = recipe(reader, steps, repositories)?;
    if !complete {
        return None;
    }
    let locked = reader.world.outside.surroundings.locked_inputs(reader.id, &recipe);
    let inputs = locked.map_or(Inputs::Unlocked, Inputs::Locked);
    let policy = ImagePolicy { tests, surface: surface? };
    Some(Image { identity: ImageIdentity { recipe, inputs }, policy })
}

fn recipe(reader: &Reader<'_>, steps: Vec<Step>, repositories: Vec<Repository>) -> Option<Recipe> {
    let base = reader.required("base", |field| {
        let base = base(field, reader.world.outside.surroundings)?;
        if let Base::Image { image } = &base {
            reader.note_base(&image.id, field.span());
        }
        Some(base)
    });
    let is_debian = base.as_ref().is_none_or(|base| matches!(base, Base::Debian { .. }));
    let packages = reader.read_or("packages", BTreeSet::new(), |f| packages(f, is_debian));
    let pockets = reader.read_or("pockets", None, |field| {
        debian_only(field, is_debian)?;
        some_of(field, POCKETS).map(Some)
    });
    let recommends = reader.read_or("recommends", false, |field| {
        debian_only(field, is_debian)?;
        field.boolean()
    });
    let keep = reader.read_or("keep", BTreeSet::new(), |field| {
        debian_only(field, is_debian)?;
        some_of(field, KEPT)
    });
    let scripts = reader.read_or("scripts", Scripts::default(), |field| {
        debian_only(field, is_debian)?;
        one_of(field, &[("skip", Scripts::Skip), ("sandbox", Scripts::Sandbox)])
    });
    if !is_debian && let Some(repository) = repositories.first() {
        let summary = format!("repository {:?} has no suite to go with", repository.name);
        let diagnostic = Diagnostic::error(reader.header, summary)
            .with_help("packages need a Debian base: base = debian(\"bookworm\")");
        reader.world.report(diagnostic);
        return None;
    }
    let env = reader.read_or("env", BTreeMap::new(), steps::environment);
    let workdir = reader.read_or("workdir", None, |field| absolute_path(field).map(Some));
    let user = reader.read_or("user", None, |field| user(field).map(Some));
    let entrypoint = reader.read_or("entrypoint", Vec::new(), |f| f.strings());
    let writable = reader.read_or("writable", BTreeMap::new(), writable);
    let labels = reader.read_or("labels", BTreeMap::new(), |f| f.string_map());
    Some(Recipe {
        base: base?,
        repositories,
        pockets: pockets?,
        packages: packages?,
        recommends: recommends?,
        keep: keep?,
        scripts: scripts?,
        steps,
        env: env?,
        workdir: workdir?,
        user: user?,
        entrypoint: entrypoint?,
        writable: writable?,
        labels: labels?,
    })
}

/// Names of Debian packages (Debian policy 5.6.1).
fn packages(field: &Field<'_>, is_debian: bool) -> Option<BTreeSet<String>> {
    let elements = field.elements()?;
    if !is_debian && !elements.is_empty() {
        let diagnostic = Diagnostic::error(field.span(), "only a Debian base has packages")
            .with_help("start from debian(\"bookworm\"), or bring the files with `copy`");
        field.report(diagnostic);
        return None;
    }
    let read = |element: &Field<'_>| {
        let text = element.string()?;
        // `name:architecture` is a package of another architecture.
        let (name, architecture) = text.split_once(':').unwrap_or((&text, "all"));
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(plain);
        let fits = |b: u8| plain(b) || b"+-.".contains(&b);
        let fits = first && name.len() >= 2 && bytes.all(fits);
        if fits && !architecture.is_empty() && architecture.bytes().all(|b| plain(b) || b == b'-') {
            return Some(text);
        }
        let refusal = element.refusal("the name of a package, such as \"nginx-light\"");
        element.report(if text.contains(['=', '/']) {
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
pub(in crate::stack::lower) fn user(field: &Field<'_>) -> Option<String> {
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

const POCKETS: &[(&str, Pocket)] = &[
    ("updates", Pocket::Updates),
    ("security", Pocket::Security),
    ("backports", Pocket::Backports),
];

const KEPT: &[(&str, Keep)] =
    &[("docs", Keep::Docs), ("man", Keep::Man), ("locales", Keep::Locales), ("dpkg", Keep::Dpkg)];

/// Refuses a setting that is about packages where there are none.
fn debian_only(field: &Field<'_>, is_debian: bool) -> Option<()> {
    if is_debian {
        return Some(());
    }
    let summary = format!("`{}` is about packages, which only a Debian base has", field.path());
    let diagnostic = Diagnostic::error(field.span(), summary);
    field.report(diagnostic.with_help("start from debian(\"bookworm\"), or leave it out"));
    None
}

/// One of several words.
fn one_of<T: Copy>(field: &Field<'_>, words: &[(&str, T)]) -> Option<T> {
    let text = field.string()?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let listed: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let refusal = field.refusal(&format!("one of {}", listed.join(", ")));
    field.report(match nearest(&text, words.iter().map(|(word, _)| *word)) {
        Some(near) => refusal.with_help(format!("did you mean {near:?}?")),
        None => refusal,
    });
    None
}

/// A list of some of several words.
fn some_of<T: Copy + Ord>(field: &Field<'_>, words: &[(&str, T)]) -> Option<BTreeSet<T>> {
    let read: Vec<Option<T>> =
        field.elements()?.iter().map(|element| one_of(element, words)).collect();
    read.into_iter().collect()
}

/// Names of environment variables: not empty, without `=`.
pub(in crate::stack::lower) fn check_environment_names<'n>(
    field: &Field<'_>,
    mut names: impl Iterator<Item = &'n String>,
) -> Option<()> {
    let wrong = names.find(|name| name.is_empty() || name.contains(['=', '\0']));
    let Some(wrong) = wrong else { return Some(()) };
    let summary = format!("{wrong:?} cannot be the name of an environment variable");
    field.report(Diagnostic::error(field.span(), summary));
    None
}
