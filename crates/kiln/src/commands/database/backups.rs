//! `kiln database backup`, `backups` and `verify`.

use std::fmt::Write as _;

use kiln_engine::backup::{Answer, Ask, BackupView, Backups, Verification};

use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::render::table::Table;

use super::{Named, ask, senseless};

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The database, `database.orders` or `orders`
    #[arg(value_name = "NAME")]
    name: String,
    /// The backup that is restored; the newest where none is named
    #[arg(value_name = "BACKUP")]
    backup: Option<String>,
}

pub(super) fn make(context: &Context, named: &Named) -> Result<Exit, CommandError> {
    let Answer::Made(view) = ask(context, &named.name, &Ask::Make)? else {
        return Err(senseless());
    };
    context.print(&view, || made(&view))?;
    Ok(if view.faults.is_empty() { Exit::Done } else { Exit::Failed })
}

pub(super) fn list(context: &Context, named: &Named) -> Result<Exit, CommandError> {
    let Answer::List(backups) = ask(context, &named.name, &Ask::List)? else {
        return Err(senseless());
    };
    context.print(&backups, || text(&backups))?;
    Ok(Exit::Done)
}

pub(super) fn verify(context: &Context, args: &Verify) -> Result<Exit, CommandError> {
    let wanted = Ask::Verify { backup: args.backup.clone() };
    let Answer::Verified(found) = ask(context, &args.name, &wanted)? else {
        return Err(senseless());
    };
    context.print(&found, || verified(&found))?;
    Ok(if found.faults.is_empty() { Exit::Done } else { Exit::Failed })
}

fn made(view: &BackupView) -> String {
    let mut text = format!("{} {} ({})\n", view.id, view.state, size(view.size));
    for fault in &view.faults {
        let _ = writeln!(text, "    {fault}");
    }
    text
}

fn text(backups: &Backups) -> String {
    let sealed = if backups.encrypted { ", encrypted" } else { "" };
    let mut text = format!("Backups of {} in {}{sealed}\n", backups.component, backups.place);
    match &backups.restorable {
        Some(span) => {
            let _ = writeln!(text, "Any moment from {} to {} can be restored.", span.from, span.to);
        }
        None => text.push_str("Nothing can be restored yet.\n"),
    }
    let archive = &backups.archive;
    if archive.waiting > 0 {
        let since = archive.waiting_since.as_deref().unwrap_or("a moment ago");
        let waiting = archive.waiting;
        let _ = writeln!(text, "{waiting} files of the log wait to be archived since {since}.");
    }
    for fault in archive.trouble.iter().chain(&backups.faults) {
        let _ = writeln!(text, "    {fault}");
    }
    if backups.backups.is_empty() {
        return text;
    }
    let mut table = Table::default();
    table.row(["BACKUP", "ENDED", "SIZE", "STATE", "PROVED", "LOG"]);
    for backup in &backups.backups {
        let proved = backup.proved_at.as_deref().unwrap_or("never");
        let log = format!("{} to {}", backup.log.from, backup.log.to);
        let size = size(backup.size);
        table.row([&backup.id, &backup.ended_at, &size, &backup.state, proved, &log]);
    }
    text.push_str(&table.render(0));
    for backup in &backups.backups {
        for fault in &backup.faults {
            let _ = writeln!(text, "{}: {fault}", backup.id);
        }
    }
    text
}

fn verified(found: &Verification) -> String {
    let Verification { backup, proved, log_files, faults } = found;
    let mut text = String::new();
    for what in proved {
        let _ = writeln!(text, "{backup}: {what}");
    }
    let _ = writeln!(text, "{log_files} files of the log were read.");
    for fault in faults {
        let _ = writeln!(text, "damaged: {fault}");
    }
    if faults.is_empty() {
        text.push_str("Nothing is damaged.\n");
    }
    text
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units.into_iter().find(|(bits, _)| bytes >> bits > 0);
    match fits {
        Some((bits, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> bits;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_their_largest_unit() {
        let said = [0, 1023, 1024, 5_083_926, 3 << 30].map(size);
        assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "4.8 MiB", "3.0 GiB"]);
    }
}
