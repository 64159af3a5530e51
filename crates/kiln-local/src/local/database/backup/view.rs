//! Backups as they are shown.

use std::sync::Arc;

use kiln_backup::archive::Archive;
use kiln_backup::catalogue::{Catalogue, Copy, Line};
use kiln_backup::segment::LogFile;
use kiln_engine::backup::{ArchiveState, BackupView, Backups, Span};
use kiln_model::quantity::Timestamp;

use super::{Tender, destination, prove};
use crate::local::Machine;
use crate::local::database::lock;

/// What there is.
pub(super) fn list(machine: &Arc<Machine>, tender: &Tender) -> Result<Backups, String> {
    let wanted = tender.wanted();
    let from = destination::place(machine, &wanted)?;
    let catalogue = from.catalogue(&wanted)?;
    let archiving = lock(&tender.archive).clone();
    let mut faults = catalogue.faults.clone();
    faults.extend(catalogue.lines.iter().filter_map(prove::gap));
    let copies = catalogue.lines.iter().flat_map(|l| l.copies.iter().map(move |copy| (l, copy)));
    Ok(Backups {
        component: wanted.creation.component.clone(),
        place: from.store.place(),
        encrypted: from.seal.is_some(),
        archive: ArchiveState {
            waiting: archiving.waiting,
            waiting_since: archiving.since.map(|at| at.to_string()),
            last: archiving.last,
            trouble: archiving.trouble,
        },
        restorable: restorable(&from, &catalogue, tender),
        backups: copies.map(|(line, copy)| copy_view(line, copy)).collect(),
        faults,
    })
}

/// A copy as it is shown.
pub(super) fn copy_view(line: &Line, copy: &Copy) -> BackupView {
    let Copy { base, proof } = copy;
    let state = match proof {
        None => "unproved",
        Some(proof) if proof.is_good() => "proved",
        Some(_) => "damaged",
    };
    let (proved, faults) =
        proof.as_ref().map(|it| (it.passed.clone(), it.faults.clone())).unwrap_or_default();
    BackupView {
        id: base.id.clone(),
        line: line.name.clone(),
        began_at: base.began.to_string(),
        ended_at: base.ended.to_string(),
        size: base.size(),
        log: Span { from: base.start.to_string(), to: base.stop.to_string() },
        state: state.to_owned(),
        proved_at: proof.as_ref().map(|proof| proof.at.to_string()),
        proved,
        faults,
    }
}

/// From the first copy that is not damaged to the end of the log without a gap.
fn restorable(from: &destination::Place, catalogue: &Catalogue, tender: &Tender) -> Option<Span> {
    let all = catalogue.lines.iter().flat_map(|line| &line.copies);
    let first = all.filter(|copy| !copy.is_damaged()).map(|copy| copy.base.ended).min()?;
    let line = catalogue.lines.iter().rfind(|line| !line.copies.is_empty())?;
    let newest = line.copies.iter().rfind(|copy| !copy.is_damaged())?;
    let choice = kiln_backup::choice::with_log(line, newest);
    let seal = from.seal.as_ref();
    let archive = Archive { store: &*from.store, line: &line.name, seal, scratch: &tender.work };
    let last = choice.segments.last().map(|segment| LogFile::Segment(*segment));
    let written = last.and_then(|file| archive.read(&file).ok()).map(|kept| kept.written);
    let to: Timestamp = written.unwrap_or(newest.base.ended).max(newest.base.ended);
    Some(Span { from: first.to_string(), to: to.to_string() })
}
