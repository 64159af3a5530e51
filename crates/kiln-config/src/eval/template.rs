//! Templates: text with interpolations, conditions and loops.

use super::{Evaluated, Evaluator, error};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{Expr, Template, TemplatePart};
use crate::syntax::span::Span;
use crate::value::convert::convert;
use crate::value::secret::TextBuilder;
use crate::value::{Data, Reason, Type, Value};

/// The longest text that a template makes, in bytes.
const MAX_TEXT: usize = 64 << 20;

/// The text so far.
#[derive(Default)]
struct Rendered {
    text: TextBuilder,
    /// Why the text as a whole is not known.
    unknown: Option<Reason>,
    sensitive: bool,
}

impl Evaluator<'_> {
    /// A template that is one interpolation is that value itself; any other is text.
    pub(super) fn template(&self, template: &Template, span: Span) -> Evaluated {
        if let [TemplatePart::Interpolation(expr)] = &*template.parts {
            return self.evaluate(expr);
        }
        let mut rendered = Rendered::default();
        self.render(template, &mut rendered)?;
        if rendered.text.len() > MAX_TEXT {
            return error(span, format!("the text is longer than {MAX_TEXT} bytes"));
        }
        let value = match rendered.unknown {
            Some(reason) => Value::unknown(Type::String, reason),
            None => rendered.text.finish().into(),
        };
        Ok(value.with_sensitive(rendered.sensitive))
    }

    fn render(&self, template: &Template, rendered: &mut Rendered) -> Evaluated<()> {
        let mut errors = None;
        for part in &template.parts {
            if rendered.text.len() > MAX_TEXT {
                break;
            }
            if let Err(found) = self.part(part, rendered) {
                errors.get_or_insert_with(crate::diagnostic::Diagnostics::new).extend(found);
            }
        }
        errors.map_or(Ok(()), Err)
    }

    fn part(&self, part: &TemplatePart, rendered: &mut Rendered) -> Evaluated<()> {
        match part {
            TemplatePart::Literal(text, _) => {
                rendered.text.push_str(text);
                Ok(())
            }
            TemplatePart::Interpolation(expr) => self.interpolate(expr, rendered),
            TemplatePart::If { condition, then, otherwise, .. } => {
                match self.condition(condition, rendered)? {
                    Some(true) => self.render(then, rendered),
                    Some(false) => self.render(otherwise, rendered),
                    None => Ok(()),
                }
            }
            TemplatePart::For { key, value, collection, body, .. } => {
                let elements = self.evaluate(collection)?;
                rendered.sensitive |= elements.is_sensitive();
                let unknown =
                    self.walk(key.as_ref(), value, (&elements, collection.span), &mut |inner| {
                        inner.render(body, rendered)
                    })?;
                rendered.unknown = rendered.unknown.take().or(unknown);
                Ok(())
            }
        }
    }

    fn interpolate(&self, expr: &Expr, rendered: &mut Rendered) -> Evaluated<()> {
        let value = self.evaluate(expr)?;
        rendered.sensitive |= value.is_sensitive();
        if value.is_null() {
            return error(expr.span, "null cannot be put into text");
        }
        let text = convert(&value, &Type::String).map_err(|failure| {
            let wrong = Diagnostic::error(expr.span, format!("in text {failure}"));
            let wrong = match value.data() {
                Data::List(..) | Data::Set(..) | Data::Tuple(_) => {
                    wrong.with_help("join() and jsonencode() make text of a list")
                }
                Data::Map(..) | Data::Object(_) => {
                    wrong.with_help("jsonencode() makes text of an object")
                }
                _ => wrong,
            };
            failure.help.into_iter().fold(wrong, Diagnostic::with_help)
        })?;
        match text.data() {
            Data::Secret(secret) => rendered.text.push_secret(secret),
            Data::Unknown(_, reason) => {
                rendered.unknown.get_or_insert_with(|| reason.clone());
            }
            _ => rendered.text.push_str(text.as_str().unwrap_or_default()),
        }
        Ok(())
    }

    /// Which way a condition goes; `None` where that is not known.
    fn condition(&self, expr: &Expr, rendered: &mut Rendered) -> Evaluated<Option<bool>> {
        let value = self.evaluate(expr)?;
        rendered.sensitive |= value.is_sensitive();
        let value = match convert(&value, &Type::Bool) {
            Ok(value) => value,
            Err(failure) => return error(expr.span, format!("as a condition {failure}")),
        };
        if let Some(reason) = value.unknown_reason() {
            rendered.unknown.get_or_insert_with(|| reason.clone());
            return Ok(None);
        }
        match value.as_bool() {
            Some(value) => Ok(Some(value)),
            None => error(expr.span, "a condition must not be null"),
        }
    }
}
