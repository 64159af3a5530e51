//! A plan as a person reads it: what, why, in which order, and what comes out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiln_model::generation::Output;
use kiln_model::name::StackName;

use super::changes::{Sides, list, totals};
use super::order::sentences;
use super::style::Palette;
use super::value::short;

/// What is planned for a stack.
pub(crate) struct PlanView<'a> {
    pub(crate) stack: &'a StackName,
    /// The number of the generation that it would be.
    pub(crate) next: u64,
    /// The one that serves.
    pub(crate) parent: Option<u64>,
    pub(crate) sides: Sides<'a>,
    pub(crate) outputs: &'a BTreeMap<String, Output>,
    /// Whether images are built for it; else what was built before is used.
    pub(crate) builds: bool,
}

/// The most sentences about the order.
const MOST_SENTENCES: usize = 30;

impl PlanView<'_> {
    /// The text.
    pub(crate) fn render(&self, palette: Palette) -> String {
        let stack = palette.bold(self.stack.as_str());
        if !self.sides.differ() {
            return match self.parent {
                Some(parent) => {
                    format!("Nothing to do: stack {stack} is as declared (generation {parent}).\n")
                }
                None => format!("Nothing to do: stack {stack} declares nothing.\n"),
            };
        }
        let mut text = match self.parent {
            Some(parent) => format!("Stack {stack}, generation {parent} → {}\n\n", self.next),
            None => format!("Stack {stack}, generation {}, the first\n\n", self.next),
        };
        text.push_str(&list(&self.sides, palette));
        self.order(palette, &mut text);
        let shown = outputs(self.outputs, palette);
        if !shown.is_empty() {
            let _ = write!(text, "\nOutputs\n\n{shown}");
        }
        let _ = writeln!(text, "\n{} {}", palette.bold("Plan:"), totals(&self.sides));
        text
    }

    fn order(&self, palette: Palette, text: &mut String) {
        let sentences = sentences(&self.sides, self.builds);
        if sentences.is_empty() {
            return;
        }
        text.push_str("\nIn this order\n\n");
        for (index, sentence) in sentences.iter().take(MOST_SENTENCES).enumerate() {
            let number = palette.dim(&format!("{:>3}.", index + 1));
            let _ = writeln!(text, "  {number} {sentence}");
        }
        if sentences.len() > MOST_SENTENCES {
            let more = sentences.len() - MOST_SENTENCES;
            let _ = writeln!(text, "       and {more} more");
        }
    }
}

/// The outputs, a line each.
pub(crate) fn outputs(outputs: &BTreeMap<String, Output>, palette: Palette) -> String {
    let width = outputs.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, output) in outputs {
        let value = match &output.value {
            _ if output.sensitive => "(sensitive)".to_owned(),
            serde_json::Value::Null => "(known after apply)".to_owned(),
            value => short(value),
        };
        let _ = writeln!(text, "  {name:width$} = {}", palette.cyan(&value));
    }
    text
}

#[cfg(test)]
mod tests;
