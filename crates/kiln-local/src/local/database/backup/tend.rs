//! The threads that care for the backups of one database.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kiln_backup::catalogue::{BASE, Copy, Line, remove_base};
use kiln_backup::retention::expired;
use kiln_backup::segment::{LogFile, Segment};
use kiln_engine::backup::{Answer, Ask, BackupView, Verification, Wanted};
use kiln_model::quantity::{Millis, Timestamp};

use super::prove::{gap, read_all};
use super::{Request, Tender, Trade, destination, ship, view};
use crate::local::create::chain;
use crate::local::database::lock;
use crate::local::{Machine, now};

/// From one look for files of the log to the next.
const LOOK: Duration = Duration::from_millis(250);
/// From one look whether something is due to the next.
const TURN: Duration = Duration::from_millis(500);
/// How long a trouble that may pass is waited for before there is an alarm.
const PATIENCE: Millis = Millis::seconds(60);
/// The pause after something has failed; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Archives the log until the tender is stopped.
pub(super) fn archive(machine: &Weak<Machine>, tender: &Arc<Tender>) {
    let (mut begun, mut told, mut pause) = (BTreeSet::new(), None, LOOK);
    let mut last = Instant::now();
    while !tender.is_stopped() {
        std::thread::sleep(LOOK);
        if last.elapsed() < pause {
            continue;
        }
        let Some(machine) = machine.upgrade() else { return };
        let wanted = tender.wanted();
        let round = ship::round(&machine, &wanted, &tender.place, &tender.work, &mut begun);
        last = Instant::now();
        // A place that does not answer is not asked without a pause.
        pause = if round.trouble.is_some() { (pause * 2).min(PAUSE) } else { LOOK };
        let why = round.trouble.as_ref().map(|trouble| trouble.why.clone());
        {
            let mut archive = lock(&tender.archive);
            archive.rounds += 1;
            archive.waiting = round.waiting;
            archive.since = round.since;
            archive.last = round.last.or(archive.last.take());
            archive.trouble.clone_from(&why);
        }
        let late = round.since.is_some_and(|since| now().since(since) > PATIENCE);
        let due = round.trouble.is_some_and(|trouble| trouble.lasting || late);
        if due && told != why {
            let waiting = round.waiting;
            let what = why.clone().unwrap_or_default();
            let what = format!("its log is not archived, {waiting} files wait: {what}");
            machine.databases.backups.alarm(&machine, &wanted, what);
            told = why;
        } else if why.is_none() {
            told = None;
        }
    }
}

/// Makes copies when they are due, and does what is asked for, until the tender is stopped.
pub(super) fn tend(machine: &Weak<Machine>, tender: &Arc<Tender>, asked: &Receiver<Request>) {
    let mut keeper =
        Keeper { tender, retry: None, pause: PAUSE, looked: false, newest: None, doubtful: None };
    while !tender.is_stopped() {
        let request = asked.recv_timeout(TURN);
        let Some(machine) = machine.upgrade() else { return };
        match request {
            Ok(Request { ask, reply }) => {
                // Who does not wait any more needs no answer.
                let _ = reply.send(keeper.answer(&machine, ask));
            }
            Err(RecvTimeoutError::Timeout) => keeper.turn(&machine),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What the newest copy is: its line, when it began, and whether it is yet to be proved.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Newest {
    line: String,
    id: String,
    began: Timestamp,
    unproved: bool,
}

struct Keeper<'a> {
    tender: &'a Arc<Tender>,
    /// Before that nothing is tried again.
    retry: Option<Instant>,
    pause: Duration,
    /// Whether it was looked at what is there, and nothing has happened to it since that is not known.
    looked: bool,
    /// The newest copy of the line that writes go to.
    newest: Option<Newest>,
    /// What an alarm was raised for last.
    doubtful: Option<String>,
}

impl Keeper<'_> {
    /// Does what is due.
    fn turn(&mut self, machine: &Arc<Machine>) {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        let wanted = self.tender.wanted();
        match self.due(machine, &wanted) {
            Ok(()) => (self.retry, self.pause) = (None, PAUSE),
            Err(why) => {
                self.retry = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                if self.doubtful.as_ref() != Some(&why) && !self.tender.is_stopped() {
                    machine.databases.backups.alarm(machine, &wanted, why.clone());
                    self.doubtful = Some(why);
                }
            }
        }
    }

    fn due(&mut self, machine: &Arc<Machine>, wanted: &Wanted) -> Result<(), String> {
        let Some(line) = self.tender.current(wanted) else { return Ok(()) };
        if !self.looked {
            self.newest = self.look(machine, wanted)?;
            self.looked = true;
        }
        let newest = self.newest.clone();
        let fresh = newest.as_ref().is_some_and(|newest| {
            newest.line == line && now().since(newest.began) < wanted.backup.every
        });
        if !fresh {
            // Nobody can be copied before somebody takes writes, and that is no fault of the backups.
            let primary = self.tender.place.primary();
            if primary.is_some_and(|id| machine.databases.takes_writes(&id)) {
                self.make(machine, wanted)?;
            }
        } else if newest.is_some_and(|newest| newest.unproved) {
            self.prove_newest(machine, wanted)?;
        }
        Ok(())
    }

    fn look(&self, machine: &Arc<Machine>, wanted: &Wanted) -> Result<Option<Newest>, String> {
        let from = destination::place(machine, wanted)?;
        let catalogue = from.catalogue(wanted)?;
        let current = self.tender.current(wanted);
        let mut lines = catalogue.lines.iter().filter(|line| Some(&line.name) == current.as_ref());
        let newest = lines.find_map(|line| Some((line, line.copies.last()?)));
        Ok(newest.map(|(line, copy)| Newest {
            line: line.name.clone(),
            id: copy.base.id.clone(),
            began: copy.base.began,
            unproved: copy.proof.is_none(),
        }))
    }

    fn trade<T>(
        &self,
        machine: &Arc<Machine>,
        wanted: &Wanted,
        work: impl FnOnce(&Trade<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let called_off = || self.tender.is_stopped();
        let (place, directory) = (&self.tender.place, &self.tender.work);
        work(&Trade::new(machine, wanted, place, directory, "", &called_off)?)
    }

    /// Makes a copy, proves it, and removes what is not needed any more.
    fn make(&mut self, machine: &Arc<Machine>, wanted: &Wanted) -> Result<BackupView, String> {
        let made = self.trade(machine, wanted, |trade| trade.copy(wanted));
        let (line, base) = made.map_err(|why| format!("no copy of its data was made: {why}"))?;
        self.newest = Some(Newest { line, id: base.id.clone(), began: base.began, unproved: true });
        self.looked = true;
        self.prove_newest(machine, wanted)
    }

    fn prove_newest(
        &mut self,
        machine: &Arc<Machine>,
        wanted: &Wanted,
    ) -> Result<BackupView, String> {
        let newest = self.newest.clone().ok_or("there is no copy")?;
        let from = destination::place(machine, wanted)?;
        let catalogue = from.catalogue(wanted)?;
        let line = catalogue.line_named(&newest.line);
        let copy = line.and_then(|l| l.copies.iter().find(|copy| copy.base.id == newest.id));
        let Some((line, copy)) = line.zip(copy) else {
            // Somebody has removed it, or the place does not show it yet.
            self.looked = false;
            return Err(format!("the copy {} is not there any more", newest.id));
        };
        let proof = self.trade(machine, wanted, |trade| trade.prove(&from, line, copy));
        let proof = proof.map_err(|why| format!("whether {} can be restored: {why}", newest.id))?;
        if let Some(newest) = &mut self.newest {
            newest.unproved = false;
        }
        let faults = proof.faults.join("; ");
        let copy = Copy { proof: Some(proof), ..copy.clone() };
        let view = view::copy_view(line, &copy);
        if !faults.is_empty() {
            let what = format!("the backup {} is damaged: {faults}", copy.base.id);
            machine.databases.backups.alarm(machine, wanted, what);
            return Ok(view);
        }
        // While files wait, the ones after them may be there already.
        let settled = lock(&self.tender.archive).waiting == 0;
        self.doubtful = gap(line).filter(|_| settled);
        if let Some(gap) = self.doubtful.clone() {
            machine.databases.backups.alarm(machine, wanted, gap);
        }
        self.expire(&from, wanted)?;
        Ok(view)
    }

    /// Removes what is not needed any more.
    fn expire(&self, from: &destination::Place, wanted: &Wanted) -> Result<(), String> {
        let store = &*from.store;
        let Some(current) = self.tender.current(wanted) else { return Ok(()) };
        // What is there now, proofs and all.
        let catalogue = from.catalogue(wanted)?;
        let gone = expired(&catalogue, &current, now(), wanted.backup.keep);
        let removed = || -> Result<(), kiln_backup::StoreError> {
            for line in catalogue.lines.iter().filter(|line| gone.lines.contains(&line.name)) {
                for copy in &line.copies {
                    remove_base(store, line, &copy.base.id)?;
                }
                line.names.iter().try_for_each(|name| store.remove(name))?;
            }
            for (name, id) in &gone.copies {
                if let Some(line) = catalogue.line_named(name) {
                    remove_base(store, line, id)?;
                }
            }
            for (name, below) in &gone.below {
                let Some(line) = catalogue.line_named(name) else { continue };
                for name in line.names.iter().filter(|name| is_below(name, *below)) {
                    store.remove(name)?;
                }
                for id in &line.unfinished {
                    if is_abandoned(store, line, id, now())? {
                        remove_base(store, line, id)?;
                    }
                }
            }
            Ok(())
        };
        removed().map_err(|error| format!("what is not needed any more stays: {}", chain(&error)))
    }

    fn answer(&mut self, machine: &Arc<Machine>, ask: Ask) -> Result<Answer, String> {
        let wanted = self.tender.wanted();
        match ask {
            Ask::List => view::list(machine, self.tender).map(Answer::List),
            Ask::Make => self.make(machine, &wanted).map(Answer::Made),
            Ask::Verify { backup } => self.verify(machine, &wanted, backup).map(Answer::Verified),
            Ask::Restore { at, into } => {
                self.tender.restore(machine, &wanted, &at, &into).map(Answer::Restored)
            }
        }
    }

    fn verify(
        &mut self,
        machine: &Arc<Machine>,
        wanted: &Wanted,
        backup: Option<String>,
    ) -> Result<Verification, String> {
        let from = destination::place(machine, wanted)?;
        let catalogue = from.catalogue(wanted)?;
        let all =
            || catalogue.lines.iter().flat_map(|l| l.copies.iter().map(move |copy| (l, copy)));
        let found = match &backup {
            Some(id) => all().find(|(_, copy)| copy.base.id == *id),
            None => all().max_by_key(|(_, copy)| copy.base.began),
        };
        let Some((line, copy)) = found else {
            let none = || "there is no backup yet".to_owned();
            return Err(backup.map_or_else(none, |id| format!("there is no backup {id}")));
        };
        let proof = self.trade(machine, wanted, |trade| trade.prove(&from, line, copy))?;
        self.looked = false;
        let id = copy.base.id.clone();
        let (log_files, read) = read_all(&from, &catalogue, &id, &self.tender.work)?;
        let mut faults = proof.faults;
        for fault in read {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        if !faults.is_empty() {
            let what = format!("what is stored is damaged: {}", faults.join("; "));
            machine.databases.backups.alarm(machine, wanted, what);
        }
        Ok(Verification { backup: id, proved: proof.passed, log_files, faults })
    }
}

/// Whether a name is that of a segment, or of what belongs to one, below a number.
fn is_below(name: &str, number: u64) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let [_, "wals", .., file] = parts.as_slice() else { return false };
    let Some(file) = file.split(".gz").next() else { return false };
    match file.parse() {
        Ok(LogFile::Segment(segment) | LogFile::Partial(segment)) => segment.number < number,
        Ok(LogFile::Label(name)) => {
            let segment = name.split('.').next().and_then(|it| it.parse().ok());
            segment.is_some_and(|it: Segment| it.number < number)
        }
        _ => false,
    }
}

/// Whether a copy was never completed, and nobody is at it any more: what is shown late, or was read wrong
/// once, is left.
fn is_abandoned(
    store: &dyn kiln_backup::Store,
    line: &Line,
    id: &str,
    now: Timestamp,
) -> Result<bool, kiln_backup::StoreError> {
    const AGE: Millis = Millis(24 * 3_600_000);
    let below = format!("{}/base/{id}/", line.name);
    let newest = store.list(&below)?.into_iter().map(|object| object.modified).max();
    let old = newest.is_none_or(|newest| newest.after(AGE) < now);
    Ok(old && store.get(&format!("{below}{BASE}")).is_err_and(|error| error.is_absent()))
}
