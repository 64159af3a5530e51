//! `kiln database …`: the data of databases, and its backups.

mod backups;
mod restore;

use kiln_engine::backup::{Answer, Ask};
use kiln_model::name::{ComponentId, Kind, StackName};

use crate::context::Context;
use crate::error::{CommandError, Exit};

use super::scale::find;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Copy a database's data now, and prove the copy by restoring it
    Backup(Named),
    /// List the backups of a database, and what can be restored
    Backups(Named),
    /// Restore a backup to see, read all that is stored, and name what is damaged
    Verify(backups::Verify),
    /// Bring the data of a moment into a directory
    Restore(restore::Args),
}

/// A database.
#[derive(Debug, clap::Args)]
struct Named {
    /// The database, `database.orders` or `orders`
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    match &args.what {
        What::Backup(named) => backups::make(context, named),
        What::Backups(named) => backups::list(context, named),
        What::Verify(args) => backups::verify(context, args),
        What::Restore(args) => restore::run(context, args),
    }
}

/// The stack, and a database of its active generation.
fn named(context: &Context, name: &str) -> Result<(StackName, ComponentId), CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let active = ledger.active(&stack)?.ok_or_else(|| {
        CommandError::failed(format!("no generation of {stack} is active"))
            .with_help("`kiln apply` brings it up")
    })?;
    let component = find(&active, name, Some(Kind::Database))?;
    Ok((stack, component))
}

/// Asks the daemon about the backups of a database.
fn ask(context: &Context, name: &str, ask: &Ask) -> Result<Answer, CommandError> {
    let (stack, component) = named(context, name)?;
    context.ask(async |mut client| client.backups(&stack, &component, ask).await)
}

fn senseless() -> CommandError {
    CommandError::failed("the daemon's answer is not to what was asked")
}
