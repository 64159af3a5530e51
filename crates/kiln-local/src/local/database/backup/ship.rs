//! The log of changes goes from the volumes of a database to where its backups are.
//!
//! The engine keeps each file of its log until it is told that it is archived. It is read from outside,
//! put where it belongs, read again from there, and only then there is the mark that the engine waits
//! for. So whatever is away (the daemon, the store, the machine) only has more files wait. No key of a
//! store is ever in an instance.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kiln_backup::StoreError;
use kiln_backup::archive::{Archive, Shipped};
use kiln_backup::catalogue::{self, About};
use kiln_backup::segment::{LogFile, fault};
use kiln_database::{Log, engine};
use kiln_engine::backup::Wanted;
use kiln_model::quantity::Timestamp;

use super::destination;
use crate::local::create::chain;
use crate::local::database::place::Place;
use crate::local::{Machine, now};

/// What was found in one round.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Files that wait still.
    pub(super) waiting: u64,
    /// Since when the oldest of them has been whole.
    pub(super) since: Option<Timestamp>,
    /// The last one that was archived.
    pub(super) last: Option<String>,
    /// Why the first of those that wait does.
    pub(super) trouble: Option<Trouble>,
}

/// Why a file is not archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: String,
    /// Whether it stays so until somebody acts.
    pub(super) lasting: bool,
}

/// A log that has files to be archived.
struct Source {
    line: String,
    system: u64,
    log: Log,
    /// Where it is only for that: it goes when nothing waits any more.
    left: Option<PathBuf>,
}

/// Archives what waits in all volumes of a database.
pub(super) fn round(
    machine: &Machine,
    wanted: &Wanted,
    place: &Place,
    scratch: &Path,
    begun: &mut BTreeSet<String>,
) -> Round {
    let mut round = Round::default();
    let sources = sources(place, wanted);
    // Opened only where there is something to be archived.
    let mut destination = None;
    for source in &sources {
        let marks = place.archived(&source.line);
        for name in source.log.waiting.iter().filter(|name| !marks.join(name).exists()) {
            let Ok(file) = name.parse::<LogFile>() else { continue };
            let shipped = destination
                .get_or_insert_with(|| destination::place(machine, wanted))
                .as_ref()
                .map_err(|why| Trouble { why: why.clone(), lasting: true })
                .and_then(|to| {
                    let seal = to.seal.as_ref();
                    let archive = Archive { store: &*to.store, line: &source.line, seal, scratch };
                    begin(&archive, wanted, source, begun)?;
                    ship(&archive, source, &file)
                })
                .and_then(|_| mark(&marks, name).map_err(|error| passing(&error)));
            match shipped {
                Ok(()) => round.last = Some(name.clone()),
                Err(trouble) => {
                    round.waiting += 1;
                    let written = source.log.read(name).ok().flatten().map(|(_, at)| at);
                    round.since = round.since.into_iter().chain(written).min();
                    round.trouble.get_or_insert(trouble);
                    // The ones after it would leave a gap, and would fail as well.
                    break;
                }
            }
        }
    }
    tidy(place, &sources);
    round
}

fn passing(error: &dyn std::error::Error) -> Trouble {
    Trouble { why: chain(error), lasting: false }
}

fn of_store(error: StoreError) -> Trouble {
    let lasting = matches!(error, StoreError::Altered { .. } | StoreError::Refused { .. });
    Trouble { why: chain(&error), lasting }
}

/// The logs of all volumes, and of those that were removed before all of it was archived.
fn sources(place: &Place, wanted: &Wanted) -> Vec<Source> {
    let Some(data) = &wanted.creation.data else { return Vec::new() };
    let engine = engine(data.identity.engine);
    // One that is being made has nothing yet.
    let of_volume = |volume| {
        let data = place.data(&volume);
        let (line, system) = (place.line(engine, &volume).ok()?, engine.system(&data).ok()?);
        Some(Source { line, system, log: engine.log(&data).ok()?, left: None })
    };
    // What is older first, so that there is no gap for long.
    let left = place.left().unwrap_or_default().into_iter().filter_map(|(line, system, left)| {
        Some(Source { line, system, log: engine.log(&left).ok()?, left: Some(left) })
    });
    left.chain(place.list().unwrap_or_default().into_iter().filter_map(of_volume)).collect()
}

fn begin(
    archive: &Archive<'_>,
    wanted: &Wanted,
    source: &Source,
    begun: &mut BTreeSet<String>,
) -> Result<(), Trouble> {
    if begun.contains(&source.line) {
        return Ok(());
    }
    begin_line(archive.store, archive.scratch, wanted, &source.line, source.system)
        .map_err(of_store)?;
    begun.insert(source.line.clone());
    Ok(())
}

fn ship(archive: &Archive<'_>, source: &Source, file: &LogFile) -> Result<Shipped, Trouble> {
    let read = source.log.read(&file.to_string()).map_err(|error| passing(&error))?;
    let Some((content, written)) = read else {
        let why = format!("{file} is to be archived, and is not there");
        return Err(Trouble { why, lasting: true });
    };
    let wrong = match file {
        LogFile::Segment(segment) => fault(*segment, source.system, &content),
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(Trouble { why: format!("{file} is not archived: {wrong}"), lasting: true });
    }
    archive.ship(file, &content, written).map_err(of_store)
}

fn mark(marks: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(marks)?;
    File::create(marks.join(name)).map(drop)
}

/// Removes marks that no engine waits for any more, and logs of which all is archived.
fn tidy(place: &Place, sources: &[Source]) {
    let lines: BTreeSet<&str> = sources.iter().map(|source| source.line.as_str()).collect();
    for line in lines {
        let marks = place.archived(line);
        let own = || sources.iter().filter(|source| source.line == line && source.left.is_none());
        for entry in fs::read_dir(&marks).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let waits = |source: &Source| source.log.waiting.iter().any(|it| **it == *name);
            let left = sources.iter().any(|source| source.left.is_some() && waits(source));
            if !own().any(waits) && !left {
                // One that stays is met again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    for source in sources {
        let marks = place.archived(&source.line);
        if let Some(left) = &source.left
            && source.log.waiting.iter().all(|name| marks.join(name).exists())
        {
            let _ = fs::remove_dir_all(left);
        }
    }
}

/// What a line is of, as it is written down where it begins.
fn about(wanted: &Wanted, system: u64) -> About {
    About {
        stack: wanted.creation.stack.clone(),
        component: wanted.creation.component.clone(),
        version: wanted.creation.data.as_ref().map_or(0, |data| data.identity.version),
        system,
        began: now(),
    }
}

/// See [`catalogue::begin`].
pub(super) fn begin_line(
    store: &dyn kiln_backup::Store,
    scratch: &Path,
    wanted: &Wanted,
    line: &str,
    system: u64,
) -> Result<(), StoreError> {
    catalogue::begin(store, scratch, line, &about(wanted, system))
}
