//! Changes as a list: what happens to each component, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use kiln_model::change::{Action, Because, Change};
use kiln_model::generation::Content;
use kiln_model::name::ComponentId;
use kiln_model::seal::{Sealed, Unknown};
use kiln_model::spec::Spec;
use kiln_model::spec::image::Step;

use super::spec::{counted, summary};
use super::style::Palette;
use super::value::{are_texts, lines, short_at};

/// The two sides of a set of changes.
pub(crate) struct Sides<'a> {
    pub(crate) before: &'a Content,
    pub(crate) after: &'a BTreeMap<ComponentId, Sealed>,
    pub(crate) changes: &'a [Change],
}

impl<'a> Sides<'a> {
    /// What differs.
    pub(crate) fn differences(&self) -> impl Iterator<Item = &'a Change> {
        self.changes.iter().filter(|change| change.is_difference())
    }

    /// Whether anything does.
    pub(crate) fn differ(&self) -> bool {
        self.differences().next().is_some()
    }

    /// Whether a database's data is to go over to a newer major version.
    pub(crate) fn crosses(&self, id: &ComponentId) -> bool {
        let version = |spec: &Spec| spec.as_database().map(|database| database.identity.version);
        let before = self.before.components.get(id).and_then(|it| version(&it.spec));
        before.is_some() && before < self.after.get(id).and_then(|it| version(&it.spec))
    }

    /// How many components begin with this action, policies apart.
    pub(crate) fn count(&self, action: Action) -> usize {
        self.differences().filter(|c| c.action == action).count()
    }
}

/// The content of a generation as the other side of a comparison.
pub(crate) fn sealed(content: &Content) -> BTreeMap<ComponentId, Sealed> {
    let seal = |component: &kiln_model::generation::Component| Sealed {
        spec: component.spec.clone(),
        digest: Ok(component.digest),
    };
    content.components.iter().map(|(id, component)| (id.clone(), seal(component))).collect()
}

/// The list: a line per component that differs, and below it why.
pub(crate) fn list(sides: &Sides<'_>, palette: Palette) -> String {
    let differences: Vec<&Change> = sides.differences().collect();
    let names = differences.iter().map(|change| change.id().to_string().chars().count());
    let width = names.max().unwrap_or(0);
    let mut text = String::new();
    for change in differences {
        head(sides, change, width, palette, &mut text);
        for because in own(change) {
            reason(sides, change, because, palette, &mut text);
        }
        for line in cascades(sides, change) {
            let _ = writeln!(text, "        {}", palette.dim(&line));
        }
    }
    text
}

/// Symbol, name, and what the component is or was.
fn head(sides: &Sides<'_>, change: &Change, width: usize, palette: Palette, text: &mut String) {
    let id = change.id();
    let spec = sides.after.get(&id).map(|s| &s.spec);
    let spec = spec.or_else(|| sides.before.components.get(&id).map(|c| &c.spec));
    let mut what = spec.map(|spec| summary(spec)).unwrap_or_default();
    if change.action == Action::Keep {
        "handled in another way; nobody is replaced".clone_into(&mut what);
    }
    match &change.unknown {
        None => {}
        // What is built from it says less: the reason stands at the component itself.
        Some(Unknown::NotLocked(of) | Unknown::ToBeGenerated(of)) if *of != id => {
            what.push_str(" (digest known after apply)");
        }
        Some(unknown) => {
            let _ = write!(what, " (digest known after apply: {unknown})");
        }
    }
    let symbol = match change.action {
        Action::Create => palette.green("  +"),
        Action::Replace => palette.yellow("-/+"),
        Action::Keep => palette.yellow("  ~"),
        Action::Destroy => palette.red("  -"),
    };
    let name = format!("{:width$}", id.to_string());
    let line = format!("{symbol} {}  {what}", palette.bold(&name));
    let _ = writeln!(text, "  {}", line.trim_end());
}

/// The component's own differences. What is new or goes needs no comparison.
fn own(change: &Change) -> impl Iterator<Item = &Because> {
    let compared = matches!(change.action, Action::Keep | Action::Replace);
    change.because.iter().filter(move |because| compared && because.through.is_empty())
}

fn reason(
    sides: &Sides<'_>,
    change: &Change,
    because: &Because,
    palette: Palette,
    text: &mut String,
) {
    let path = place(sides, &change.id(), &because.path);
    if let (true, Some(from), Some(to)) =
        (are_texts(&because.from, &because.to), because.from.as_str(), because.to.as_str())
    {
        let _ = writeln!(text, "        {path}:");
        for line in lines(from, to) {
            let line = match line.as_bytes().first() {
                Some(b'+') => palette.green(&line),
                Some(b'-') => palette.red(&line),
                _ => palette.dim(&line),
            };
            let _ = writeln!(text, "          {line}");
        }
        return;
    }
    let side = |value| short_at(&because.path, value);
    let (from, to) = (side(&because.from), side(&because.to));
    let arrow = palette.dim("→");
    let _ = writeln!(text, "        {path}: {} {arrow} {}", palette.red(&from), palette.green(&to));
}

/// One line for each component that a replacement comes from by reference. Its values stand at
/// that component.
fn cascades(sides: &Sides<'_>, change: &Change) -> Vec<String> {
    let mut found: BTreeMap<(&[ComponentId], &ComponentId), BTreeSet<&str>> = BTreeMap::new();
    for because in change.because.iter().filter(|b| !b.through.is_empty()) {
        let Some(source) = because.through.last() else { continue };
        let way = &because.through[..because.through.len() - 1];
        found.entry((way, source)).or_default().insert(&because.path);
    }
    let line = |((way, source), paths): ((&[ComponentId], &ComponentId), BTreeSet<&str>)| {
        let mut line = format!("because of {source}");
        if !way.is_empty() {
            let way: Vec<String> = way.iter().map(ToString::to_string).collect();
            let _ = write!(line, " (through {})", way.join(" → "));
        }
        let paths: Vec<String> = paths.iter().map(|path| place(sides, source, path)).collect();
        if paths.len() <= 3 {
            let _ = write!(line, ": {}", paths.join(", "));
        } else {
            let _ = write!(line, ": {} and {} more", paths[..2].join(", "), paths.len() - 2);
        }
        line
    };
    found.into_iter().map(line).collect()
}

/// Where a value stands in its component, as its author would say it: a step of an image is
/// named by what it makes and not by its number.
fn place(sides: &Sides<'_>, id: &ComponentId, path: &str) -> String {
    let path = path.strip_prefix(&format!("{id}.")).unwrap_or(path);
    let named = || {
        let (number, rest) = path.strip_prefix("steps[")?.split_once(']')?;
        let number: usize = number.parse().ok()?;
        let after = sides.after.get(id).map(|sealed| &sealed.spec);
        let before = sides.before.components.get(id).map(|component| &component.spec);
        let step = |spec: Option<&Arc<Spec>>| {
            spec?.as_image()?.identity.recipe.steps.get(number).map(step_name)
        };
        let name = step(after).or_else(|| step(before))?;
        let field = rest.rsplit_once('.').map_or("", |(_, field)| field);
        // Of a step that is new or gone there is no one field to name.
        let field =
            if rest.matches('.').count() == 2 { format!(" {field}") } else { String::new() };
        Some(format!("{name}{field}"))
    };
    named().unwrap_or_else(|| path.to_owned())
}

fn step_name(step: &Step) -> String {
    match step {
        Step::Copy { from, .. } | Step::Take { from, .. } => format!("copy {from:?}"),
        Step::File { path, .. } => format!("file {path:?}"),
        Step::Directory { path, .. } => format!("directory {path:?}"),
        Step::Symlink { path, .. } => format!("symlink {path:?}"),
        Step::User { name, .. } => format!("user {name:?}"),
        Step::Group { name, .. } => format!("group {name:?}"),
        Step::Run { name, .. } => format!("run {name:?}"),
    }
}

/// `Plan: 2 to create, 1 to replace; 3 stay as they are.`
pub(crate) fn totals(sides: &Sides<'_>) -> String {
    let policies = sides.count(Action::Keep);
    let parts: Vec<String> = [
        (sides.count(Action::Create), "to create"),
        (sides.count(Action::Replace), "to replace"),
        (policies, "to handle in another way"),
        (sides.count(Action::Destroy), "to destroy"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let staying = sides.changes.iter().filter(|c| !c.is_difference()).count();
    match staying {
        0 => format!("{}.", parts.join(", ")),
        1 => format!("{}; 1 component stays as it is.", parts.join(", ")),
        _ => format!("{}; {} stay as they are.", parts.join(", "), counted(staying, "component")),
    }
}
