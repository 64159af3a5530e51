//! What names mean inside the blocks of a stack.

use std::rc::Rc;

use kiln_model::name::{ComponentId, Kind};
use kiln_model::spec::database::Engine;

use super::expand::Expansion;
use super::lower::database;
use super::world::{Place, Talk, World};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::eval::{Evaluated, Reference, Resolved, Scope};
use crate::syntax::ast::{Ident, Name};
use crate::syntax::span::Span;
use crate::value::secret::{SecretText, SecretVersion, TextBuilder};
use crate::value::{Component, InstanceKey, Value};

/// The names that every expression knows.
const ROOTS: &[&str] = &[
    "var", "local", "path", "stack", "each", "count", "image", "network", "secret", "server",
    "database", "endpoint",
];

/// Where an expression stands: it decides what `each`, `count` and iterators mean.
#[derive(Clone, Copy)]
pub(super) struct Site<'s> {
    world: &'s World<'s>,
    /// The component whose block it is.
    instance: Option<(&'s Rc<Expansion>, usize)>,
    /// The element of the `dynamic` block that it stands in.
    iterator: Option<&'s Iterator>,
}

/// What a `dynamic` block's iterator stands for.
pub(super) struct Iterator {
    pub(super) name: Name,
    /// An object with `key` and `value`.
    pub(super) item: Value,
}

impl<'s> Site<'s> {
    /// Outside of any component.
    pub(super) fn of_stack(world: &'s World<'s>) -> Self {
        Self { world, instance: None, iterator: None }
    }

    /// In the block of a component.
    pub(super) fn of_instance(
        world: &'s World<'s>,
        expansion: &'s Rc<Expansion>,
        index: usize,
    ) -> Self {
        Self { world, instance: Some((expansion, index)), iterator: None }
    }

    /// In the content of a `dynamic` block.
    pub(super) fn with_iterator(self, iterator: &'s Iterator) -> Self {
        Self { iterator: Some(iterator), ..self }
    }

    fn each(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        let instance = self.instance.map(|(expansion, index)| expansion.instance(index));
        let key = instance.and_then(|instance| instance.reference.instance.as_ref());
        let wanted = reference.steps.first().map_or("", |step| &*step.name);
        let value = match (&**reference.root, wanted, key) {
            ("each", "key", Some(InstanceKey::Key(key))) => Value::from(key.clone()),
            ("each", "value", Some(InstanceKey::Key(_))) => {
                instance.and_then(|instance| instance.value.clone()).unwrap_or_else(Value::null)
            }
            ("count", "index", Some(InstanceKey::Index(index))) => Value::from(*index),
            ("each", "key" | "value", _) => return Err(outside(reference, "for_each")),
            ("count", "index", _) => return Err(outside(reference, "count")),
            ("each", ..) => return Err(no_attribute(reference, &["key", "value"])),
            _ => return Err(no_attribute(reference, &["index"])),
        };
        Ok(Resolved { value, steps: 1 })
    }

    fn variable(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        let name = first_step(reference, "a variable")?;
        let Some(variables) = self.world.variables.get() else {
            let summary = "a variable cannot refer to another one here";
            return Err(Diagnostic::error(reference.span_to(1), summary).into());
        };
        match variables.get(&name.name) {
            Some(Some(value)) => Ok(Resolved { value: value.clone(), steps: 1 }),
            Some(None) => Err(Diagnostics::new()),
            None => Err(self.undeclared("variable", name, variables.keys().map(|name| &**name))),
        }
    }

    fn local(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        let name = first_step(reference, "a local")?;
        let index = &self.world.program.local_index;
        let Some(found) = index.get(&name.name) else {
            return Err(self.undeclared("local", name, index.keys().map(|name| &**name)));
        };
        let value = self.world.local(*found, reference.span_to(1))?;
        Ok(Resolved { value, steps: 1 })
    }

    fn component(&self, kind: Kind, reference: &Reference<'_>) -> Evaluated<Resolved> {
        let name = first_step(reference, "a component")?;
        let program = self.world.program;
        match program.find(kind, &name.name) {
            Some(block) => {
                let expansion = self.world.expansion(block, reference.span_to(1))?;
                Ok(Resolved { value: expansion.value(), steps: 1 })
            }
            None => Err(self.undeclared(kind.as_str(), name, program.names(kind))),
        }
    }

    fn undeclared<'n>(
        &self,
        what: &str,
        name: &Ident,
        known: impl std::iter::Iterator<Item = &'n str>,
    ) -> Diagnostics {
        if self.world.program.incomplete {
            return Diagnostics::new();
        }
        let summary = format!("there is no {what} `{}`", name.name);
        let diagnostic = Diagnostic::error(name.span, summary).with_label("not declared");
        let help = match self.world.nearest(&name.name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if what == "local" => {
                format!("declare it: locals {{ {} = … }}", name.name)
            }
            None => format!("declare it: {what} \"{}\" {{ … }}", name.name),
        };
        diagnostic.with_help(help).into()
    }

    /// Notes that the block of a server names another one's address.
    fn mention(&self, to: &ComponentId, span: Span) {
        if let Some((expansion, index)) = self.instance {
            let from = expansion.id(index).clone();
            if from.kind == Kind::Server && from != *to {
                let talk = Talk { from, to: to.clone(), span };
                self.world.mentions.borrow_mut().push(talk);
            }
        }
    }

    /// What clients of a database have to know.
    fn of_database(&self, place: Place, id: &ComponentId, what: &str, span: Span) -> Evaluated {
        let world = self.world;
        let engine = Engine::Postgres;
        let named = |attribute: &'static str| {
            let plain = world.setting_or(place, attribute, span, database::plain_name)?;
            Ok::<_, Diagnostics>(plain.unwrap_or_else(|| database::identifier(id)))
        };
        Ok(match what {
            "port" => Value::from(i64::from(engine.port())),
            "user" => Value::from(named("user")?),
            "database" => Value::from(named("database")?),
            _ => {
                self.mention(id, span);
                let address = world.address(place, span)?;
                let password = world.setting(place, "password", span, database::password)?;
                let version = SecretVersion {
                    secret: password.name.as_str().into(),
                    version: "present".into(),
                };
                let (user, database) = (named("user")?, named("database")?);
                let mut text = TextBuilder::default();
                text.push_str(&format!("{}://{user}:", engine.as_str()));
                text.push_secret(&SecretText::new(version));
                text.push_str(&format!("@{address}:{}/{database}", engine.port()));
                Value::from(text.finish())
            }
        })
    }

    fn place(&self, component: &Component, span: Span) -> Evaluated<Place> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == &*component.kind);
        let found = kind.and_then(|kind| self.world.program.find(kind, &component.name));
        let Some(block) = found else {
            let summary = format!("what {}(…) yields has no attributes", component.kind);
            return Err(Diagnostic::error(span, summary).into());
        };
        let expansion = self.world.expansion(block, span)?;
        let index = expansion.position(component.instance.as_ref());
        index.map(|index| (block, index)).ok_or_else(Diagnostics::new)
    }
}

impl Scope for Site<'_> {
    fn resolve(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        if let Some(iterator) = self.iterator.filter(|i| *i.name == **reference.root) {
            return Ok(Resolved { value: iterator.item.clone(), steps: 0 });
        }
        let root = &**reference.root;
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == root) {
            return self.component(kind, reference);
        }
        let named = |names: &[&str], value: &str| match reference.steps.first() {
            Some(step) if names.contains(&&*step.name) => {
                Ok(Resolved { value: Value::from(value), steps: 1 })
            }
            _ => Err(no_attribute(reference, names)),
        };
        match root {
            "var" => self.variable(reference),
            "local" => self.local(reference),
            "each" | "count" => self.each(reference),
            // Paths are taken relative to the stack's directory, so that what is made of them is
            // the same wherever it lies.
            "path" => named(&["stack"], "."),
            "stack" => named(&["name"], self.world.outside.stack_name),
            _ => Err(unknown_root(reference)),
        }
    }

    fn attribute(&self, component: &Component, name: &Ident) -> Evaluated {
        let place = self.place(component, name.span)?;
        let declaration = &self.world.program.components[place.0];
        let expansion = self.world.expansion(place.0, name.span)?;
        let id = expansion.id(place.1);
        let known: &[&str] = match declaration.kind {
            Kind::Server => &["address", "host", "name"],
            Kind::Endpoint => &["address", "host", "port", "url", "name"],
            Kind::Network => &["cidr", "name"],
            Kind::Database => &["address", "host", "port", "user", "database", "url", "name"],
            Kind::Image | Kind::Secret => &["name"],
        };
        Ok(match (declaration.kind, &*name.name) {
            (_, "name") => Value::from(id.name.as_str()),
            (Kind::Server | Kind::Database, "address") => {
                self.mention(id, name.span);
                Value::from(self.world.address(place, name.span)?.to_string())
            }
            (Kind::Server | Kind::Database, "host") => {
                self.mention(id, name.span);
                Value::from(format!("{}.{}.kiln", id.host_name(), id.kind))
            }
            (Kind::Database, attribute @ ("port" | "user" | "database" | "url")) => {
                self.of_database(place, id, attribute, name.span)?
            }
            (Kind::Network, "cidr") => Value::from(self.world.range(place, name.span)?.to_string()),
            (Kind::Endpoint, "address" | "host" | "port" | "url") => {
                let listen = self.world.listen(place, name.span)?;
                match &*name.name {
                    "host" => Value::from(listen.ip().to_string()),
                    "port" => Value::from(i64::from(listen.port())),
                    "url" => {
                        let body = &self.world.program.components[place.0].block.body;
                        let tls = super::schema::attribute(body, "tls").is_some();
                        Value::from(format!("{}://{listen}", if tls { "https" } else { "http" }))
                    }
                    _ => Value::from(listen.to_string()),
                }
            }
            _ => {
                let summary = format!("{id} has no attribute `{}`", name.name);
                let diagnostic = Diagnostic::error(name.span, summary)
                    .with_label(format!("expected {}", known.join(" or ")));
                return Err(match nearest(&name.name, known.iter().copied()) {
                    Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
                    None => diagnostic,
                }
                .into());
            }
        })
    }
}

fn first_step<'r>(reference: &Reference<'r>, what: &str) -> Evaluated<&'r Ident> {
    if let Some(name) = reference.steps.first() {
        return Ok(name);
    }
    let root = reference.root;
    let summary = format!("`{root}` alone means nothing");
    Err(Diagnostic::error(reference.span, summary)
        .with_label(format!("expected the name of {what}: {root}.name"))
        .into())
}

/// `each` or `count` where nothing is repeated.
fn outside(reference: &Reference<'_>, attribute: &str) -> Diagnostics {
    let root = reference.root;
    let summary = format!("`{root}` means nothing here");
    Diagnostic::error(reference.span_to(1), summary)
        .with_label(format!("this block has no `{attribute}`"))
        .into()
}

fn no_attribute(reference: &Reference<'_>, names: &[&str]) -> Diagnostics {
    let root = reference.root;
    let list: Vec<String> = names.iter().map(|name| format!("{root}.{name}")).collect();
    let summary = match reference.steps.first() {
        Some(step) => format!("`{root}` has no attribute `{}`", step.name),
        None => format!("`{root}` alone means nothing"),
    };
    Diagnostic::error(reference.span_to(1), summary)
        .with_label(format!("expected {}", list.join(" or ")))
        .into()
}

fn unknown_root(reference: &Reference<'_>) -> Diagnostics {
    let root = reference.root;
    let diagnostic = Diagnostic::error(reference.span, format!("`{root}` is not known here"));
    let near = nearest(root, ROOTS.iter().copied());
    let help = match (&**root, near) {
        ("module" | "data" | "terraform" | "self", _) => {
            "references start with var, local, path, stack or the kind of a component".into()
        }
        (_, Some(near)) => format!("did you mean `{near}`?"),
        (_, None) if reference.steps.is_empty() => {
            format!("if it is text, write it in quotes: \"{root}\"")
        }
        (_, None) => format!("the references are {}", ROOTS.join(", ")),
    };
    diagnostic.with_help(help).into()
}
