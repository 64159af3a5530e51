//! From a proposal to its end, and what is said about it.

use std::fmt::Write as _;
use std::time::Instant;

use kiln_daemon::api::{Apply, Decision, End, FaultKind};
use kiln_daemon::client::{ClientError, Lines};
use kiln_daemon::prepare::Draft;
use kiln_engine::journal::{AbandonKind, Abandonment};
use kiln_model::name::StackName;

use crate::context::Context;
use crate::document::change::{ChangeOutcome, Ending, ReasonDocument};
use crate::document::{Outputs, outputs};
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::change::{Watched, watch};
use crate::render::style::Palette;
use crate::render::time::span;

use super::Concluded;

/// What is being changed.
pub(crate) struct Change<'a> {
    /// The stack.
    pub(crate) stack: &'a StackName,
    /// The outputs that it has afterwards.
    pub(crate) outputs: Outputs,
    /// When the command began.
    pub(crate) begun: Instant,
}

/// Proposes and watches to the end.
pub(crate) async fn conclude(
    context: &Context,
    change: Change<'_>,
    proposal: &Apply,
    board: &Board,
) -> Result<Exit, Concluded> {
    let mut client = context.client().await?;
    let lines = match client.apply(change.stack, proposal).await {
        Err(ClientError::Refused(fault)) if fault.kind == FaultKind::Conflict => {
            return Err(Concluded::ParentChanged);
        }
        lines => lines?,
    };
    Ok(see_to_the_end(context, change, lines, board).await?)
}

/// Watches what was begun, and says how it ended.
pub(crate) async fn see_to_the_end(
    context: &Context,
    change: Change<'_>,
    lines: Lines,
    board: &Board,
) -> Result<Exit, CommandError> {
    let watched = watch(context, change.stack, lines, board).await?;
    let (outcome, exit) = outcome(context, &change, &watched);
    if let Watched::Ended(_, End::Abandoned { generation, reason, serving }) = &watched {
        context.say(&abandoned(*generation, reason, *serving, context.err));
    }
    context.print(&outcome, || text(&outcome, context.out))?;
    match exit {
        Exit::Done => Ok(Exit::Done),
        _ => Err(CommandError::shown()),
    }
}

fn outcome(context: &Context, change: &Change<'_>, watched: &Watched) -> (ChangeOutcome, Exit) {
    let mut outcome = ChangeOutcome {
        stack: change.stack.to_string(),
        generation: None,
        outcome: Ending::Applied,
        serving: None,
        reasons: Vec::new(),
        outputs: Outputs::new(),
        duration_ms: u64::try_from(change.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let exit = match watched {
        Watched::Ended(decision, End::Active { generation, settled }) => {
            if let Decision::Unchanged(_) = decision {
                outcome.outcome = Ending::Unchanged;
            }
            if !settled {
                context.say("some of what was replaced is still finishing what it has begun");
            }
            (outcome.generation, outcome.serving) = (Some(*generation), Some(*generation));
            outcome.outputs = change.outputs.clone();
            Exit::Done
        }
        Watched::Ended(_, End::Abandoned { generation, reason, serving }) => {
            outcome.outcome = Ending::Abandoned;
            (outcome.generation, outcome.serving) = (Some(*generation), *serving);
            outcome.reasons = reason.blame.iter().map(ReasonDocument::from).collect();
            Exit::Failed
        }
        Watched::Detached(decision) => {
            outcome.outcome = Ending::Detached;
            outcome.generation = Some(decision.generation());
            Exit::Failed
        }
    };
    (outcome, exit)
}

/// The end of a command that committed nothing.
pub(crate) fn nothing(
    context: &Context,
    draft: &Draft,
    ending: Ending,
    begun: Instant,
) -> Result<Exit, CommandError> {
    let serving = draft.parent.as_ref();
    let outcome = ChangeOutcome {
        stack: draft.stack.to_string(),
        generation: None,
        outcome: ending,
        serving: serving.map(|generation| generation.number),
        reasons: Vec::new(),
        outputs: serving.map(|g| outputs(&g.content.outputs)).unwrap_or_default(),
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    context.print(&outcome, || text(&outcome, context.out))?;
    Ok(Exit::Failed)
}

/// Why a generation was given up, with what its instances last wrote.
fn abandoned(
    generation: u64,
    reason: &Abandonment,
    serving: Option<u64>,
    palette: Palette,
) -> String {
    let why = match reason.kind {
        AbandonKind::Deadline => "it was not healthy at its deadline",
        AbandonKind::Worse => "its instances did worse than those before",
        AbandonKind::Refused => "a step of it is not possible here",
        AbandonKind::Cancelled => "it was cancelled",
        AbandonKind::Superseded => "another one took its place",
    };
    let mut text = format!("{}: generation {generation} was given up: {why}", palette.red("error"));
    for blame in &reason.blame {
        let component = blame.component.as_ref().map(|c| format!("{c}: ")).unwrap_or_default();
        let _ = write!(text, "\n  {component}{}", blame.cause);
        for line in &blame.last_words {
            let _ = write!(text, "\n    {} {line}", palette.dim("|"));
        }
    }
    let serves = match serving {
        Some(serving) => format!("generation {serving} serves on"),
        None => "nothing is left of it, as before".to_owned(),
    };
    let _ = write!(text, "\n  {serves}");
    text
}

fn text(outcome: &ChangeOutcome, palette: Palette) -> String {
    let took = span(std::time::Duration::from_millis(outcome.duration_ms));
    let stack = &outcome.stack;
    let generation = outcome.generation.unwrap_or(0);
    let mut text = match outcome.outcome {
        Ending::Applied => {
            format!("{} stack {stack}, generation {generation}, in {took}", palette.green("Done:"))
        }
        Ending::Unchanged => format!("Nothing to do: stack {stack} is at generation {generation}"),
        Ending::Declined => "Nothing was changed.".to_owned(),
        Ending::Detached => format!(
            "Generation {generation} goes on without you; `kiln status` shows how far it has come."
        ),
        Ending::Abandoned => return String::new(),
    };
    if matches!(outcome.outcome, Ending::Applied | Ending::Unchanged) && !outcome.outputs.is_empty()
    {
        text.push('\n');
        let width = outcome.outputs.keys().map(|n| n.chars().count()).max().unwrap_or(0);
        for (name, output) in &outcome.outputs {
            let value = output.value.as_ref().map_or_else(
                || "(sensitive)".to_owned(),
                |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            );
            let _ = write!(text, "\n  {name:width$} = {}", palette.cyan(&value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use kiln_engine::journal::Blame;

    use super::*;

    #[test]
    fn a_generation_that_was_given_up_says_why() {
        let reason = Abandonment {
            kind: AbandonKind::Deadline,
            blame: vec![Blame {
                component: Some("server.web".parse().unwrap()),
                cause: "never ready: connection refused".to_owned(),
                last_words: vec!["starting".to_owned(), "no such file: /etc/web.conf".to_owned()],
            }],
        };
        let expected = "\
error: generation 4 was given up: it was not healthy at its deadline
  server.web: never ready: connection refused
    | starting
    | no such file: /etc/web.conf
  generation 3 serves on";
        assert_eq!(abandoned(4, &reason, Some(3), Palette::plain()), expected);
    }
}
