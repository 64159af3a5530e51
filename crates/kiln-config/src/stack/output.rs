//! `output` blocks: values that the stack gives to its reader.

use kiln_model::generation::Output;

use super::decode::Field;
use super::schema::attribute;
use super::scope::Site;
use super::world::World;
use crate::diagnostic::Diagnostic;
use crate::function::json;
use crate::syntax::ast::Block;
use crate::value::Value;
use crate::value::secret::BuiltText;

/// The value of an output; `None` where it is wrong, which is reported.
pub(super) fn output(world: &World<'_>, block: &Block) -> Option<Output> {
    let site = Site::of_stack(world);
    if let Some(description) = attribute(&block.body, "description") {
        let value = world.evaluate(&description.expr, &site)?;
        Field::new("description", &value, &description.expr, world.sink).string()?;
    }
    let sensitive = match attribute(&block.body, "sensitive") {
        None => false,
        Some(flag) => {
            let value = world.evaluate(&flag.expr, &site)?;
            Field::new("sensitive", &value, &flag.expr, world.sink).boolean()?
        }
    };
    let expr = &attribute(&block.body, "value")?.expr;
    let value = world.evaluate(expr, &site)?;
    if sensitive {
        return Some(Output { value: serde_json::Value::Null, sensitive: true });
    }
    if value.contains_sensitive() {
        let label = match value.first_secret() {
            Some(secret) => format!("holds secret.{}", secret.secret),
            None => "holds a sensitive value".into(),
        };
        world.report(
            Diagnostic::error(
                expr.span,
                "an output that holds what is not to be shown must say so",
            )
            .with_label(label)
            .with_help("add `sensitive = true`"),
        );
        return None;
    }
    match to_json(&value) {
        Ok(value) => Some(Output { value, sensitive: false }),
        Err((message, help)) => {
            let diagnostic = Diagnostic::error(expr.span, "this value cannot be an output");
            let diagnostic = diagnostic.with_label(message);
            world.report(match help {
                Some(help) => diagnostic.with_help(help),
                None => diagnostic,
            });
            None
        }
    }
}

fn to_json(value: &Value) -> Result<serde_json::Value, (String, Option<String>)> {
    if value.first_unknown().is_some() {
        return Ok(serde_json::Value::Null);
    }
    let text = json::encode(value).map_err(|failure| (failure.message, failure.help))?;
    let BuiltText::Plain(text) = text else {
        return Err(("it holds a secret".into(), None));
    };
    serde_json::from_str(&text).map_err(|error| (error.to_string(), None))
}
