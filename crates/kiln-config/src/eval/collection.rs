//! Object constructors and `for` expressions.

use std::collections::BTreeMap;

use super::access::text_key;
use super::{Evaluated, Evaluator, error, help};
use crate::diagnostic::Diagnostics;
use crate::syntax::ast::{Expr, For, ForResult, Ident, ObjectItem};
use crate::syntax::span::Span;
use crate::value::convert::convert;
use crate::value::{Data, Key, Reason, Type, Value};

/// A key, or why it is not known; and whether it is sensitive.
type KeyOrReason = (Result<Key, Reason>, bool);

/// What came of the elements of a `for` expression.
#[derive(Default)]
struct Collected {
    elements: Vec<Value>,
    entries: BTreeMap<Key, Vec<Value>>,
    /// Why the result as a whole is not known.
    unknown: Option<Reason>,
    sensitive: bool,
}

impl Evaluator<'_> {
    /// `{ key = value }`. Of equal keys the last one wins.
    pub(super) fn object(&self, items: &[ObjectItem]) -> Evaluated {
        let mut attributes = BTreeMap::new();
        let mut unknown = None;
        let mut sensitive = false;
        let mut errors: Option<Diagnostics> = None;
        for item in items {
            let pair = match (self.key(&item.key), self.evaluate(&item.value)) {
                (Ok(key), Ok(value)) => Ok((key, value)),
                (Err(mut key), Err(value)) => {
                    key.extend(value);
                    Err(key)
                }
                (Err(found), _) | (_, Err(found)) => Err(found),
            };
            match pair {
                Ok(((Ok(key), marked), value)) => {
                    sensitive |= marked;
                    attributes.insert(key, value);
                }
                Ok(((Err(reason), marked), _)) => {
                    sensitive |= marked;
                    unknown = Some(reason);
                }
                Err(found) => errors.get_or_insert_default().extend(found),
            }
        }
        if let Some(errors) = errors {
            return Err(errors);
        }
        let object = match unknown {
            Some(reason) => Value::unknown(Type::Any, reason),
            None => Value::object(attributes),
        };
        Ok(object.with_sensitive(sensitive))
    }

    fn key(&self, expr: &Expr) -> Evaluated<KeyOrReason> {
        let key = self.evaluate(expr)?;
        if key.is_null() {
            return error(expr.span, "a key must not be null");
        }
        let sensitive = key.is_sensitive();
        if let Some(reason) = key.unknown_reason() {
            return Ok((Err(reason.clone()), sensitive));
        }
        let text = text_key(&key, expr.span)?;
        Ok((Ok(Key::from(text.as_str().unwrap_or_default())), sensitive))
    }

    /// `[for …]` and `{for …}`.
    pub(super) fn for_expr(&self, each: &For) -> Evaluated {
        let collection = self.evaluate(&each.collection)?;
        let mut collected = Collected::default();
        let walked = self.walk(
            each.key.as_ref(),
            &each.value,
            (&collection, each.collection.span),
            &mut |inner| inner.for_element(each, &mut collected),
        )?;
        let result = match (walked.or(collected.unknown), &each.result) {
            (Some(reason), _) => Value::unknown(Type::Any, reason),
            (None, ForResult::Tuple(_)) => Value::tuple(collected.elements),
            (None, ForResult::Object { group: true, .. }) => {
                let groups = collected.entries.into_iter();
                Value::object(groups.map(|(key, group)| (key, Value::tuple(group))).collect())
            }
            (None, ForResult::Object { .. }) => {
                let single = |(key, mut group): (Key, Vec<Value>)| Some((key, group.pop()?));
                Value::object(collected.entries.into_iter().filter_map(single).collect())
            }
        };
        Ok(result.with_sensitive(collection.is_sensitive() || collected.sensitive))
    }

    /// Calls `body` for each element, with names for it and its key. The result is the reason
    /// why the elements are not known, if they are not.
    pub(super) fn walk(
        &self,
        key: Option<&Ident>,
        value: &Ident,
        (collection, span): (&Value, Span),
        body: &mut dyn FnMut(&Evaluator<'_>) -> Evaluated<()>,
    ) -> Evaluated<Option<Reason>> {
        let mut visit = |name: Value, element: &Value| {
            let key = key.map(|ident| (ident, name));
            self.with_locals(key, (value, element.clone()), &mut *body)
        };
        match collection.data() {
            Data::List(_, elements) | Data::Tuple(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    visit(index.into(), element)?;
                }
            }
            Data::Set(_, elements) => {
                for element in elements.iter() {
                    visit(element.clone(), element)?;
                }
            }
            Data::Map(_, entries) | Data::Object(entries) => {
                for (key, element) in entries.iter() {
                    visit(key.clone().into(), element)?;
                }
            }
            Data::Unknown(_, reason) => return Ok(Some(reason.clone())),
            Data::Null(_) => return error(span, "null has no elements to walk through"),
            _ => {
                let message = format!("{} has no elements to walk through", collection.describe());
                return error(span, message);
            }
        }
        Ok(None)
    }

    fn for_element(&self, each: &For, collected: &mut Collected) -> Evaluated<()> {
        if let Some(condition) = &each.condition
            && !self.keep(condition, collected)?
        {
            return Ok(());
        }
        match &each.result {
            ForResult::Tuple(result) => collected.elements.push(self.evaluate(result)?),
            ForResult::Object { key, value, group } => {
                let (name, sensitive) = self.key(key)?;
                let value = self.evaluate(value)?;
                collected.sensitive |= sensitive;
                match name {
                    Err(reason) => collected.unknown = Some(reason),
                    Ok(name) if !group && collected.entries.contains_key(&name) => {
                        let shown = if sensitive { String::new() } else { format!(" {name:?}") };
                        return error(key.span, format!("two elements yield the key{shown}"))
                            .map_err(|errors| {
                                help(errors, "... behind the value gathers equal keys in lists")
                            });
                    }
                    Ok(name) => collected.entries.entry(name).or_default().push(value),
                }
            }
        }
        Ok(())
    }

    /// Whether the filter lets an element through.
    fn keep(&self, condition: &Expr, collected: &mut Collected) -> Evaluated<bool> {
        let kept = self.evaluate(condition)?;
        collected.sensitive |= kept.is_sensitive();
        let kept = match convert(&kept, &Type::Bool) {
            Ok(kept) => kept,
            Err(failure) => return error(condition.span, format!("as a condition {failure}")),
        };
        if let Some(reason) = kept.unknown_reason() {
            collected.unknown = Some(reason.clone());
            return Ok(false);
        }
        match kept.as_bool() {
            Some(kept) => Ok(kept),
            None => error(condition.span, "a condition must not be null"),
        }
    }
}
