//! `count` and `for_each`: the components that one block makes.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use kiln_model::name::{ComponentId, Kind};
use rustc_hash::FxHashMap;

use super::decode::{Field, component_id};
use super::program::Declaration;
use super::scope::Site;
use super::world::World;
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::Expr;
use crate::value::secret::{SecretText, SecretVersion};
use crate::value::{Component, Data, InstanceKey, Key, Value};

/// The most components that one block may make.
const MAX_COMPONENTS: usize = 100_000;
/// The longest key of `for_each`, in bytes.
const MAX_KEY_BYTES: usize = 128;

/// The components that a block makes.
#[derive(Debug)]
pub(super) struct Expansion {
    instances: Vec<Instance>,
    by_key: FxHashMap<InstanceKey, usize>,
    repeats: Repeats,
    whole: OnceCell<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeats {
    Once,
    Count,
    ForEach,
}

/// One of the components that a block makes.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: ComponentId,
    pub(super) reference: Component,
    /// `each.value`.
    pub(super) value: Option<Value>,
}

impl Expansion {
    /// Evaluates `count` or `for_each`; `None` where that failed and has been reported.
    pub(super) fn new(world: &World<'_>, declaration: &Declaration) -> Option<Self> {
        let (repeats, keys) = if let Some(expr) = declaration.expr("count") {
            (Repeats::Count, count(world, expr)?)
        } else if let Some(expr) = declaration.expr("for_each") {
            (Repeats::ForEach, for_each(world, expr)?)
        } else {
            (Repeats::Once, vec![(None, None)])
        };
        let kind: Key = declaration.kind.as_str().into();
        let instance = |(key, value)| {
            let name = declaration.name.name.clone();
            let reference = Component { kind: kind.clone(), name, instance: key };
            Some(Instance { id: component_id(&reference)?, reference, value })
        };
        let instances: Vec<Instance> = keys.into_iter().map(instance).collect::<Option<_>>()?;
        let by_key = instances.iter().enumerate();
        let by_key =
            by_key.filter_map(|(index, one)| Some((one.reference.instance.clone()?, index)));
        Some(Self { by_key: by_key.collect(), instances, repeats, whole: OnceCell::new() })
    }

    pub(super) fn id(&self, index: usize) -> &ComponentId {
        &self.instances[index].id
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &ComponentId> {
        self.instances.iter().map(|instance| &instance.id)
    }

    pub(super) fn instance(&self, index: usize) -> &Instance {
        &self.instances[index]
    }

    pub(super) fn len(&self) -> usize {
        self.instances.len()
    }

    /// The place of the component with this key.
    pub(super) fn position(&self, key: Option<&InstanceKey>) -> Option<usize> {
        match key {
            None => (self.repeats == Repeats::Once).then_some(0),
            Some(key) => self.by_key.get(key).copied(),
        }
    }

    /// What `kind.name` stands for: the component itself, a list of those that `count` made, or
    /// an object of those that `for_each` made.
    pub(super) fn value(&self) -> Value {
        self.whole
            .get_or_init(|| match self.repeats {
                Repeats::Once => self.instances[0].as_value(),
                Repeats::Count => {
                    Value::tuple(self.instances.iter().map(Instance::as_value).collect())
                }
                Repeats::ForEach => {
                    let entries = self.instances.iter().filter_map(|instance| {
                        match &instance.reference.instance {
                            Some(InstanceKey::Key(key)) => Some((key.clone(), instance.as_value())),
                            _ => None,
                        }
                    });
                    Value::object(entries.collect::<BTreeMap<_, _>>())
                }
            })
            .clone()
    }
}

impl Instance {
    /// A reference to the component; of a secret, text that stands for it.
    fn as_value(&self) -> Value {
        if self.id.kind == Kind::Secret {
            // Which version it is, is known when the specs are sealed; here it is the present one.
            let version =
                SecretVersion { secret: self.id.name.as_str().into(), version: "present".into() };
            return Value::secret(SecretText::new(version));
        }
        Value::component(self.reference.clone())
    }
}

type Keys = Vec<(Option<InstanceKey>, Option<Value>)>;

fn count(world: &World<'_>, expr: &Expr) -> Option<Keys> {
    let value = world.evaluate(expr, &Site::of_stack(world))?;
    let most = u32::try_from(MAX_COMPONENTS).unwrap_or(u32::MAX);
    let count = Field::new("count", &value, expr, world.sink).integer(0..=most)?;
    Some((0..count as usize).map(|index| (Some(InstanceKey::Index(index)), None)).collect())
}

fn for_each(world: &World<'_>, expr: &Expr) -> Option<Keys> {
    const EXPECTED: &str = "a map, an object or a set of strings";
    let value = world.evaluate(expr, &Site::of_stack(world))?;
    let field = Field::new("for_each", &value, expr, world.sink);
    let keys: Keys = match value.data() {
        Data::Map(_, entries) | Data::Object(entries) if field.is_open() => {
            let entry = |(key, value): (&Key, &Value)| {
                (Some(InstanceKey::Key(key.clone())), Some(value.clone()))
            };
            entries.iter().map(entry).collect()
        }
        Data::Set(_, elements) if field.is_open() => {
            let mut keys = Vec::with_capacity(elements.len());
            for element in elements.iter() {
                let Data::String(key) = element.data() else { return field.refuse(EXPECTED) };
                keys.push((Some(InstanceKey::Key(key.clone())), Some(element.clone())));
            }
            keys
        }
        Data::Map(..) | Data::Object(_) | Data::Set(..) => return None,
        Data::List(..) | Data::Tuple(_) => {
            let help = "make a set of it with toset(…), or a map with { for … }";
            field.report(field.refusal(EXPECTED).with_help(help));
            return None;
        }
        _ => return field.refuse(EXPECTED),
    };
    if keys.len() > MAX_COMPONENTS {
        return field.refuse(&format!("a collection of at most {MAX_COMPONENTS}"));
    }
    let wrong = keys.iter().find_map(|(key, _)| match key {
        Some(InstanceKey::Key(key)) if !is_key(key) => Some(key),
        _ => None,
    });
    if let Some(key) = wrong {
        let rule = format!("1 to {MAX_KEY_BYTES} bytes without control characters");
        let summary = format!("{key:?} cannot be the key of a component");
        field.report(
            Diagnostic::error(field.span(), summary).with_label(format!("expected {rule}")),
        );
        return None;
    }
    Some(keys)
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.chars().any(char::is_control)
}
