//! References, attributes, indexes and splats.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{Evaluated, Evaluator, Reference, Resolved, error, help, suggest};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{Expr, ExprKind, Ident, Index, Splat};
use crate::syntax::span::Span;
use crate::value::convert::convert;
use crate::value::{Component, Data, Key, Reason, Type, Value};

impl Evaluator<'_> {
    /// A name, or a chain of attributes: what it begins with is resolved by the scope as far as
    /// the scope knows it.
    pub(super) fn reference_or_attribute(&self, expr: &Expr) -> Evaluated {
        let mut steps = Vec::new();
        let mut source = expr;
        while let ExprKind::GetAttr(get) = &source.kind {
            steps.push(&get.name);
            source = &get.source;
        }
        steps.reverse();
        let ExprKind::Variable(root) = &source.kind else {
            let value = self.evaluate(source)?;
            return self.follow(value, &steps);
        };
        if let Some(local) = self.local(root) {
            return self.follow(local.clone(), &steps);
        }
        let reference = Reference { root, span: source.span, steps };
        let Resolved { value, steps } = self.scope.resolve(&reference)?;
        self.follow(value, reference.steps.get(steps..).unwrap_or_default())
    }

    fn follow(&self, value: Value, steps: &[&Ident]) -> Evaluated {
        steps.iter().try_fold(value, |value, name| self.attribute(&value, name))
    }

    /// `value.name`.
    fn attribute(&self, value: &Value, name: &Ident) -> Evaluated {
        let found = match value.data() {
            Data::Object(entries) => match entries.get(&name.name) {
                Some(found) => found.clone(),
                None => return no_attribute("object", name, known(value, entries)),
            },
            Data::Map(_, entries) => match entries.get(&name.name) {
                Some(found) => found.clone(),
                None => return no_attribute("map", name, known(value, entries)),
            },
            Data::Component(component) => self.scope.attribute(component, name)?,
            Data::Unknown(ty, reason) => unknown_attribute(ty, reason, name)?,
            Data::Null(_) => {
                return error(name.span, format!("null has no attribute \"{}\"", name.name));
            }
            Data::List(..) | Data::Set(..) | Data::Tuple(_) => {
                let message = format!("{} has no attributes", value.describe());
                let way = format!("[*].{} takes the attribute of each element", name.name);
                return error(name.span, message).map_err(|errors| help(errors, &way));
            }
            _ => return error(name.span, format!("{} has no attributes", value.describe())),
        };
        Ok(found.with_sensitive(value.is_sensitive()))
    }

    /// `source[key]`.
    pub(super) fn index(&self, index: &Index, span: Span) -> Evaluated {
        let values = self.all([&index.source, &index.key])?;
        let [source, key] = values.as_slice() else {
            return error(span, "an index needs a source and a key");
        };
        let found = self.element(source, key, index)?;
        Ok(found.with_sensitive(source.is_sensitive() || key.is_sensitive()))
    }

    fn element(&self, source: &Value, key: &Value, index: &Index) -> Evaluated {
        let span = index.key.span;
        if key.is_null() {
            return error(span, "null cannot serve as an index");
        }
        if let Some(reason) = key.unknown_reason() {
            return Ok(Value::unknown(element_type(&source.ty()), reason.clone()));
        }
        match source.data() {
            Data::List(_, elements) | Data::Tuple(elements) => {
                let position = position(key, elements.len(), span)?;
                match elements.get(position) {
                    Some(found) => Ok(found.clone()),
                    None => error(span, out_of_bounds(key, position, elements.len())),
                }
            }
            Data::Map(_, entries) | Data::Object(entries) => {
                let text = text_key(key, span)?;
                let name = text.as_str().unwrap_or_default();
                entries.get(name).cloned().ok_or_else(|| {
                    let shown =
                        if key.is_sensitive() { String::new() } else { format!(" {name:?}") };
                    let missing =
                        Diagnostic::error(span, format!("there is no element with the key{shown}"));
                    suggest(missing, name, known(source, entries).map(|key| &**key)).into()
                })
            }
            Data::Component(component) => self.component_element(component, key, span),
            Data::Unknown(ty, reason) => Ok(Value::unknown(element_type(ty), reason.clone())),
            Data::Null(_) => error(index.source.span, "null has no elements"),
            Data::Set(..) => error(span, "the elements of a set have no positions or keys")
                .map_err(|errors| help(errors, "tolist() puts them in order")),
            _ => error(index.source.span, format!("{} has no elements", source.describe())),
        }
    }

    /// `server.web["address"]` is `server.web.address`; a position needs several components.
    fn component_element(&self, component: &Component, key: &Value, span: Span) -> Evaluated {
        if let (Some(name), None) = (key.as_str(), &component.instance) {
            let name = Ident { name: name.into(), span };
            return self.scope.attribute(component, &name);
        }
        error(span, format!("{component} is a single component, not several"))
            .map_err(|errors| help(errors, "only blocks with count or for_each have elements"))
    }

    /// `source[*]…`: a list stays a list; what is no list counts as a list of one.
    pub(super) fn splat(&self, splat: &Splat) -> Evaluated {
        let source = self.evaluate(&splat.source)?;
        let single = [source.clone()];
        let elements = match source.data() {
            Data::Null(_) => &[],
            Data::Unknown(_, reason) => {
                let unknown = Value::unknown(Type::Any, reason.clone());
                return Ok(unknown.with_sensitive(source.is_sensitive()));
            }
            _ => source.as_elements().unwrap_or(&single),
        };
        let mut results = Vec::with_capacity(elements.len());
        for element in elements {
            let inner = Evaluator { splat_item: Some(element), ..*self };
            results.push(inner.evaluate(&splat.each)?);
        }
        let typed = matches!(source.data(), Data::List(..) | Data::Set(..));
        let result = match results.first().map(Value::ty) {
            Some(ty) if typed && results.iter().all(|value| value.ty() == ty) => {
                Value::list(ty, results)
            }
            _ => Value::tuple(results),
        };
        Ok(result.with_sensitive(source.is_sensitive()))
    }
}

/// The keys of a value, as far as they may be shown.
fn known<'k>(
    value: &Value,
    entries: &'k BTreeMap<Key, Value>,
) -> impl Iterator<Item = &'k Key> + use<'k> {
    let shown = if value.is_sensitive() { 0 } else { entries.len() };
    entries.keys().take(shown)
}

fn no_attribute<'k>(
    what: &str,
    name: &Ident,
    names: impl IntoIterator<Item = &'k Key>,
) -> Evaluated {
    let missing =
        Diagnostic::error(name.span, format!("this {what} has no attribute \"{}\"", name.name));
    Err(suggest(missing, &name.name, names.into_iter().map(|key| &**key)).into())
}

fn unknown_attribute(ty: &Type, reason: &Reason, name: &Ident) -> Evaluated {
    let ty = match ty {
        Type::Any | Type::Component => Type::Any,
        Type::Map(element) => (**element).clone(),
        Type::Object(attributes) => match attributes.get(&name.name) {
            Some(ty) => ty.clone(),
            None => return no_attribute("object", name, attributes.keys()),
        },
        ty => return error(name.span, format!("{} has no attributes", ty.describe())),
    };
    Ok(Value::unknown(ty, reason.clone()))
}

fn element_type(ty: &Type) -> Type {
    match ty {
        Type::List(element) | Type::Map(element) => (**element).clone(),
        _ => Type::Any,
    }
}

/// A key as a position: a whole number, not negative.
fn position(key: &Value, length: usize, span: Span) -> Evaluated<usize> {
    let number = match convert(key, &Type::Number) {
        Ok(number) => number,
        Err(failure) => return error(span, format!("as a position {failure}")),
    };
    let Some(number) = number.as_number() else {
        return error(span, "a position is a number");
    };
    if !number.is_whole() {
        return error(span, "a position is a whole number");
    }
    if number.signum() < 0 {
        return error(span, "a position is counted from 0, so it cannot be negative");
    }
    match number.to_usize() {
        Some(position) => Ok(position),
        None => error(span, out_of_bounds(key, number, length)),
    }
}

fn out_of_bounds(key: &Value, position: impl Display, length: usize) -> String {
    let shown = if key.is_sensitive() { "there".into() } else { position.to_string() };
    match length {
        0 => format!("there is no element {shown}: the list is empty"),
        1 => format!("there is no element {shown}: the list has only element 0"),
        _ => format!("there is no element {shown}: the last one is {}", length - 1),
    }
}

/// A key as text without a secret.
pub(super) fn text_key(key: &Value, span: Span) -> Evaluated {
    match convert(key, &Type::String) {
        Ok(text) if text.as_str().is_some() => Ok(text),
        Ok(_) => error(span, "a key must not contain a secret"),
        Err(failure) => error(span, format!("as a key {failure}")),
    }
}
