//! `kiln plan`: what would be created, replaced and destroyed, and why. Nothing is written, and
//! neither a daemon nor, for a stack that was never applied, a root is needed.

use kiln_daemon::ledger::Ledger;
use kiln_daemon::prepare::Draft;
use kiln_model::change::Change;
use kiln_model::generation::Content;

use crate::cli::Variables;
use crate::context::{Context, print_text, to_json};
use crate::document::change::{ChangeDocument, PlanDocument};
use crate::document::outputs;
use crate::error::{CommandError, Exit};
use crate::render::changes::Sides;
use crate::render::plan::PlanView;
use crate::render::style::Palette;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    variables: Variables,
    /// Exit with 3 where there are differences
    #[arg(long)]
    detailed_exitcode: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let ledger = Ledger::open(&context.root)?;
    let draft = context.draft(&args.variables, ledger.as_ref())?;
    draft.check_addresses()?;
    let changes = draft.changes()?;
    let shown = if context.json {
        to_json(&document(&draft, &changes))? + "\n"
    } else {
        text(&draft, &changes, context.out)?
    };
    print_text(&shown)?;
    let differ = changes.iter().any(Change::is_difference);
    Ok(if args.detailed_exitcode && differ { Exit::Differences } else { Exit::Done })
}

/// The plan as a document.
fn document(draft: &Draft, changes: &[Change]) -> PlanDocument {
    PlanDocument {
        stack: draft.stack.to_string(),
        generation: draft.next_number(),
        parent: draft.parent.as_ref().map(|parent| parent.number),
        changes: ChangeDocument::all(changes),
        outputs: outputs(&draft.outputs),
    }
}

/// The plan as text.
pub(crate) fn text(
    draft: &Draft,
    changes: &[Change],
    palette: Palette,
) -> Result<String, CommandError> {
    let nothing = Content::default();
    let view = PlanView {
        stack: &draft.stack,
        next: draft.next_number(),
        parent: draft.parent.as_ref().map(|parent| parent.number),
        sides: Sides {
            before: draft.parent.as_ref().map_or(&nothing, |parent| &parent.content),
            after: draft.seal()?,
            changes,
        },
        outputs: &draft.outputs,
        builds: true,
    };
    Ok(view.render(palette))
}
