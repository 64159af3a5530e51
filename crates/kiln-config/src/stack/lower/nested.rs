//! Blocks inside a component's block, those that `dynamic` makes among them.

use kiln_model::name::Kind;

use super::Reader;
use crate::stack::decode::{Field, Marks};
use crate::stack::schema::{attribute, nested};
use crate::stack::scope::Iterator;
use crate::syntax::ast::{Block, Expr, ExprKind};
use crate::syntax::span::Span;
use crate::value::{Data, Key, Value};

/// A block inside a component's block.
pub(super) struct Nested<'n> {
    pub(super) kind: &'n str,
    /// The first label and its place.
    pub(super) label: Option<(String, Span)>,
    pub(super) reader: Reader<'n>,
}

impl Reader<'_> {
    /// Hands each block inside to `each`, in the order in which they stand. What `dynamic` makes
    /// stands where it stands. Their names have been checked.
    pub(super) fn each_block(&self, mut each: impl FnMut(&Nested<'_>)) {
        for block in &self.body.blocks {
            if &*block.kind.name == "dynamic" {
                self.dynamic(block, &mut each);
            } else if nested(&block.kind.name).is_some() {
                let (body, header, marks) = (&block.body, block.span, Marks::default());
                let reader = Reader { body, header, marks: &marks, ..*self };
                let label = block.labels.first();
                let label = label.map(|label| (label.name.to_string(), label.span));
                each(&Nested { kind: &block.kind.name, label, reader });
                self.take_marks(marks);
            }
        }
    }

    fn dynamic(&self, block: &Block, each: &mut impl FnMut(&Nested<'_>)) {
        let content = block.body.blocks.iter().find(|inner| &*inner.kind.name == "content");
        let (Some(made), Some(content)) = (block.labels.first(), content) else { return };
        let iterator = attribute(&block.body, "iterator");
        let name = iterator.and_then(|iterator| iterator.expr.as_variable()).unwrap_or(&made.name);
        let Some(items) = attribute(&block.body, "for_each").and_then(|a| self.items(&a.expr))
        else {
            return;
        };
        let labels = attribute(&block.body, "labels").map(|labels| &labels.expr);
        for (key, value) in items {
            let item = [("key", key), ("value", value)].map(|(k, v)| (Key::from(k), v));
            let iterator = Iterator { name: name.clone(), item: Value::object(item.into()) };
            let site = self.site.with_iterator(&iterator);
            let (body, header, marks) = (&content.body, content.span, Marks::default());
            let reader = Reader { site, body, header, marks: &marks, ..*self };
            let label = match labels {
                None => None,
                Some(expr) => match reader.label(expr) {
                    Some(label) => Some(label),
                    None => continue,
                },
            };
            each(&Nested { kind: &made.name, label, reader });
            self.take_marks(marks);
        }
    }

    /// What is sensitive in a block inside hides all steps, or routes: they have no names of
    /// their own.
    fn take_marks(&self, marks: Marks) {
        if !marks.into_inner().is_empty() {
            let all = if self.id.kind == Kind::Endpoint { "routes" } else { "steps" };
            self.marks.borrow_mut().insert(all.to_owned());
        }
    }

    /// The keys and values of what a `dynamic` block walks.
    fn items(&self, expr: &Expr) -> Option<Vec<(Value, Value)>> {
        let value = self.world.evaluate(expr, &self.site)?;
        let field = Field::new("for_each", &value, expr, self.world.sink);
        if !field.is_open() {
            return None;
        }
        match value.data() {
            Data::Map(_, entries) | Data::Object(entries) => {
                let items = entries.iter().map(|(k, v)| (Value::from(k.clone()), v.clone()));
                Some(items.collect())
            }
            Data::Set(_, elements) => {
                Some(elements.iter().map(|element| (element.clone(), element.clone())).collect())
            }
            Data::List(_, elements) | Data::Tuple(elements) => {
                let items = elements.iter().enumerate();
                Some(items.map(|(index, value)| (Value::from(index), value.clone())).collect())
            }
            _ => field.refuse("a list, a set, a map or an object"),
        }
    }

    /// The one label of a block that `dynamic` makes.
    fn label(&self, expr: &Expr) -> Option<(String, Span)> {
        let value = self.world.evaluate(expr, &self.site)?;
        let field = Field::new("labels", &value, expr, self.world.sink);
        let mut labels = field.strings()?;
        match labels.pop() {
            Some(label) if labels.is_empty() => {
                let span = match &expr.kind {
                    ExprKind::Tuple(exprs) if exprs.len() == 1 => exprs[0].span,
                    _ => expr.span,
                };
                Some((label, span))
            }
            _ => field.refuse("a list of one string"),
        }
    }
}
