//! Restoring a moment of a database's data: into a directory that somebody names, or into the volume of
//! an instance with which a branch of the data is opened.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_backup::catalogue::Catalogue;
use kiln_backup::choice::{Choice, Moment, choose};
use kiln_backup::segment::{Position, Segment};
use kiln_database::{Until, engine};
use kiln_engine::backup::{Restored, Wanted};
use kiln_model::plan::InstanceCreation;

use super::base::empty;
use super::prove::open_to_all;
use super::restore::Target;
use super::{Tender, Trade, Trouble, destination};
use crate::local::create::chain;
use crate::local::database::lock;
use crate::local::{Machine, now};

/// How long what is under way may take to be archived before it is restored.
const SETTLING: Duration = Duration::from_secs(60);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(250);

/// Fills the empty volume of an instance that is to be with the data of a moment.
pub(in crate::local::database) fn fill(
    machine: &Arc<Machine>,
    creation: &InstanceCreation,
    at: &str,
    data: &Path,
    called_off: &dyn Fn() -> bool,
) -> Result<(), String> {
    let (stack, component) = (&creation.stack, &creation.component);
    let tender = machine.databases.backups.tender(stack, component);
    let tender = tender.ok_or("it is not backed up, so no moment of it can be restored")?;
    let wanted = Wanted { creation: creation.clone(), ..tender.wanted() };
    let own = creation.id.as_str();
    tender.bring_back(machine, &wanted, at, data, own, called_off).map(drop)
}

impl Tender {
    /// The line that writes go to.
    pub(super) fn current(&self, wanted: &Wanted) -> Option<String> {
        let data = wanted.creation.data.as_ref()?;
        let head = self.place.head().ok()??.volume;
        self.place.line(engine(data.identity.engine), &head).ok()
    }

    /// Brings the data of a moment into a directory.
    pub(super) fn restore(
        &self,
        machine: &Arc<Machine>,
        wanted: &Wanted,
        at: &str,
        into: &Path,
    ) -> Result<Restored, String> {
        let occupied = fs::read_dir(into).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(format!("{} is not empty", into.display()));
        }
        empty(into).map_err(|error| format!("{}: {error}", into.display()))?;
        self.bring_back(machine, wanted, at, into, "", &|| self.is_stopped())
    }

    /// Fills an empty directory; `own` tells what is done at the same time apart.
    /// The line that writes go to, alone, where the moment is after they went there: another one may
    /// have begun later and been left.
    fn own_line(
        &self,
        catalogue: &Catalogue,
        current: Option<&str>,
        moment: &Moment,
    ) -> Option<Catalogue> {
        let Moment::At(at) = moment else { return None };
        let left_at = self.place.head().ok()??.left_at;
        left_at.values().max().filter(|since| *since <= at)?;
        let lines = vec![catalogue.line_named(current?)?.clone()];
        Some(Catalogue { lines, faults: Vec::new() })
    }

    fn bring_back(
        &self,
        machine: &Arc<Machine>,
        wanted: &Wanted,
        at: &str,
        into: &Path,
        own: &str,
        called_off: &dyn Fn() -> bool,
    ) -> Result<Restored, String> {
        let moment: Moment = at.parse()?;
        // The place is as it is declared now, also for an instance of an older generation.
        let from = destination::place(machine, &self.wanted())?;
        if !matches!(moment, Moment::Copy(_)) {
            self.settle(machine, wanted, &from, called_off)?;
        }
        let catalogue = from.catalogue(wanted)?;
        let current = self.current(wanted);
        let alone = self.own_line(&catalogue, current.as_deref(), &moment);
        let choice = match alone.as_ref().map(|it| choose(it, current.as_deref(), &moment)) {
            Some(Ok(choice)) => choice,
            _ => choose(&catalogue, current.as_deref(), &moment).map_err(|e| e.to_string())?,
        };
        check_version(wanted, &choice)?;
        let until = match moment {
            Moment::Latest => Until::End,
            Moment::At(at) => Until::At(at),
            Moment::Copy(_) => Until::Whole,
        };
        let sockets = self.work.join(format!("sockets-{own}"));
        empty(&sockets)
            .and_then(|()| open_to_all(&sockets))
            .map_err(|error| format!("{}: {error}", sockets.display()))?;
        let target = Target { data: into, sockets: &sockets, proves: true };
        let proved = Trade::new(machine, wanted, &self.place, &self.work, own, called_off)
            .and_then(|trade| trade.restore(&from, &choice, until, &target).map_err(Trouble::text));
        // What is left is thrown away with the next one.
        let _ = fs::remove_dir_all(&sockets);
        Ok(Restored {
            backup: choice.copy.base.id.clone(),
            line: choice.line.name.clone(),
            into: into.to_owned(),
            proved: proved?,
            at: now().to_string(),
        })
    }

    /// Waits until all that was written up to now is archived, where somebody takes writes.
    fn settle(
        &self,
        machine: &Arc<Machine>,
        wanted: &Wanted,
        from: &destination::Place,
        called_off: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let primary = self.place.primary();
        let primary = primary.filter(|id| machine.databases.takes_writes(id));
        let (Some(primary), Some(line)) = (primary, self.current(wanted)) else { return Ok(()) };
        let switched = machine.databases.switch_log(&self.place, &primary, wanted)?;
        let (timeline, position) = switched;
        let wanted = Segment { timeline, number: Position(position).last_segment() };
        let prefix = format!("{line}/wals/");
        let deadline = Instant::now() + SETTLING;
        let (mut there, mut round) = (false, 0);
        loop {
            let archive = lock(&self.archive).clone();
            if !there {
                let objects = from.store.list(&prefix).map_err(|error| chain(&error))?;
                let segment = |name: &str| name.rsplit('/').next()?.split('.').next()?.parse().ok();
                let mut segments = objects.iter().filter_map(|object| segment(&object.name));
                there = segments.any(|it: Segment| it >= wanted && it.timeline == timeline);
                round = archive.rounds;
            } else if archive.rounds > round + 1 && archive.waiting == 0 {
                // What another volume has kept is there, too.
                return Ok(());
            }
            if called_off() {
                return Err("it is not wanted any more".to_owned());
            }
            if Instant::now() >= deadline {
                let trouble = archive.trouble.unwrap_or_default();
                let seconds = SETTLING.as_secs();
                return Err(format!(
                    "what was written last is not archived within {seconds} s: {trouble}"
                ));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Refuses a copy of another major version, which the programs of the image could not read.
fn check_version(wanted: &Wanted, choice: &Choice<'_>) -> Result<(), String> {
    let wants = wanted.creation.data.as_ref().map_or(0, |data| data.identity.version);
    let (has, id) = (choice.copy.base.version, &choice.copy.base.id);
    if has == wants {
        return Ok(());
    }
    Err(format!("the backup {id} is of version {has}, and the database of version {wants}"))
}
