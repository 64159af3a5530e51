//! Bringing a database's data to a moment: a copy is laid out, the log after it beside it, and the engine
//! does the rest in a throw-away instance. What comes of it can be served as a primary's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_backup::StoreError;
use kiln_backup::archive::Archive;
use kiln_backup::choice::Choice;
use kiln_backup::segment::{LogFile, SIZE, fault};
use kiln_database::{Check, Until};
use kiln_model::data::Role;
use kiln_model::name::InstanceId;
use kiln_model::quantity::{Millis, Timestamp};

use super::unpack::{self, Stored};
use super::{Trade, Trouble, destination};
use crate::launcher::protocol::VolumeMount;
use crate::local::database::program::{Failure, Run, name_of};

/// How long the engine may take to bring data to a moment.
const RECOVERY: Duration = Duration::from_secs(6 * 3600);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How much of the log after a moment is laid out at first.
const MARGIN: Millis = Millis::seconds(600);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take to end in order.
const END: Duration = Duration::from_secs(120);

/// Where data is restored to.
pub(super) struct Target<'a> {
    /// An empty directory.
    pub(super) data: &'a Path,
    /// A directory for sockets.
    pub(super) sockets: &'a Path,
    /// Whether all that can be checked is.
    pub(super) proves: bool,
}

/// How an instance that brings data to a moment has ended.
enum Recovered {
    /// It serves; how far its data goes.
    Serves(u64),
    /// The log ends before the moment.
    EndedEarly,
}

impl Trade<'_> {
    /// Fills a directory with the data of a moment; what was proved of it.
    pub(super) fn restore(
        &self,
        from: &destination::Place,
        choice: &Choice<'_>,
        until: Until,
        target: &Target<'_>,
    ) -> Result<Vec<String>, Trouble> {
        let instance = self.instance("restore").map_err(Trouble::Failed)?;
        let mut passed = Vec::new();
        self.give(target)?;
        let (line, base) = (choice.line.name.as_str(), &choice.copy.base);
        let stored = Stored { store: &*from.store, seal: from.seal.as_ref(), line, base };
        stored.lay_out(target.data)?;
        passed.push("each file of the copy".to_owned());
        let (count, mut all) = self.lay_log(from, choice, until, target.data)?;
        passed.push(format!("{count} files of the log"));
        let failed = |error: std::io::Error| Trouble::failed("make the data ready", &error);
        self.engine.ready_to_recover(target.data).map_err(failed)?;
        unpack::sync(target.data).map_err(failed)?;
        if target.proves {
            let checks = self.engine.checks_of_copy(&instance.of(None));
            self.checks(checks, target, None, &mut passed)?;
        }
        let mut goal = until;
        let position = loop {
            match self.recover(target, goal, &mut passed)? {
                Recovered::Serves(position) => break position,
                // The moment was not in what was laid out.
                Recovered::EndedEarly if !all => {
                    self.lay_log(from, choice, Until::End, target.data)?;
                    all = true;
                }
                // Nothing was written after the last that there is.
                Recovered::EndedEarly if goal != Until::End => goal = Until::End,
                Recovered::EndedEarly => {
                    return Err(Trouble::Damaged(vec!["the log has no end".to_owned()]));
                }
            }
        };
        let newest = choice.segments.iter().max_by_key(|it| (it.timeline, it.number));
        // Also where the moment is after the end of the log: then all of it is to be there.
        let last = newest.filter(|_| goal == Until::End);
        if let Some(last) = last.filter(|last| position < last.number * SIZE) {
            let fault = format!("{last} is there, and the log could not be followed up to it");
            return Err(Trouble::Damaged(vec![fault]));
        }
        passed.push("recovery".to_owned());
        if target.proves {
            let checks = self.engine.checks_of_pages(&instance.of(None));
            self.checks(checks, target, None, &mut passed)?;
        }
        Ok(passed)
    }

    /// Gives the directory to the user of the image, by whose number all in it belongs to it.
    fn give(&self, target: &Target<'_>) -> Result<(), Trouble> {
        let instance = self.instance("restore").map_err(Trouble::Failed)?;
        let mut program = self.engine.serve(&instance.of(None));
        program.argv.truncate(1);
        program.argv.push("--version".to_owned());
        let run = self.run("restore", target.data, self.volumes(target, None));
        run.to_its_end(&program).map_err(|failure| Trouble::Failed(failure.reason))
    }

    /// Puts the files of the log where the engine looks for them; how many, and whether those are all. What
    /// was written long after the moment is left out.
    fn lay_log(
        &self,
        from: &destination::Place,
        choice: &Choice<'_>,
        until: Until,
        data: &Path,
    ) -> Result<(u64, bool), Trouble> {
        let (seal, line) = (from.seal.as_ref(), choice.line);
        let archive = Archive { store: &*from.store, line: &line.name, seal, scratch: self.work };
        let directory = data.join("pg_wal");
        let done = directory.join("archive_status");
        let failed = |error: std::io::Error| Trouble::failed("lay out the log", &error);
        unpack::make(&done, data).map_err(failed)?;
        let lay = |file: &LogFile, content: &[u8]| {
            unpack::write(&directory.join(file.to_string()), content, data)?;
            unpack::write(&done.join(format!("{file}.done")), b"", data)
        };
        let mut count = 0;
        for file in &line.histories {
            if let LogFile::History(_) = file {
                let kept = archive.read(file).map_err(of_store)?;
                lay(file, &kept.content).map_err(failed)?;
                count += 1;
            }
        }
        let mut last = None;
        for segment in &choice.segments {
            if last.is_some_and(|last| segment.number > last) {
                return Ok((count, false));
            }
            let file = LogFile::Segment(*segment);
            let kept = archive.read(&file).map_err(of_store)?;
            if let Some(wrong) = fault(*segment, line.about.system, &kept.content) {
                return Err(Trouble::Damaged(vec![format!("{}: {wrong}", archive.name(&file))]));
            }
            lay(&file, &kept.content).map_err(failed)?;
            count += 1;
            if let Until::At(at) = until
                && ended_after(kept.written, at)
            {
                last = last.or(Some(segment.number));
            }
        }
        Ok((count, true))
    }

    /// Has the engine bring the data to a moment.
    fn recover(
        &self,
        target: &Target<'_>,
        until: Until,
        passed: &mut Vec<String>,
    ) -> Result<Recovered, Trouble> {
        let instance = self.instance("restore").map_err(Trouble::Failed)?;
        let program = self.engine.recover(&instance.of(None), until);
        let socket = target.sockets.join(instance.id.as_str());
        std::fs::create_dir_all(&socket)
            .map_err(|error| Trouble::failed("make a socket", &error))?;
        let volumes = self.volumes(target, Some(&instance.id));
        let run = self.run("restore", target.data, volumes);
        run.begin(&program).map_err(|failure| Trouble::Failed(failure.reason))?;
        let what = name_of(&program);
        let deadline = Instant::now() + RECOVERY;
        let result = loop {
            if let Some(exit) = run.exit() {
                break if self.engine.ended_early(&run.words()) {
                    Ok(Recovered::EndedEarly)
                } else {
                    let failure = run.failure(&what, exit);
                    let damaged = failure.as_ref().is_none_or(|failure| failure.by_status);
                    let why = failure.map_or_else(|| format!("{what} has ended"), |it| it.reason);
                    let why = format!("it cannot be recovered: {why}");
                    Err(if damaged { Trouble::Damaged(vec![why]) } else { Trouble::Failed(why) })
                };
            }
            if self.is_called_off() {
                break Err(Trouble::Failed(Failure::called_off().reason));
            }
            if let Some(position) = self.serves(&socket) {
                let mut checks = Ok(());
                if target.proves {
                    let rows = self.engine.checks_of_rows(&instance.of(None));
                    checks = self.checks(rows, target, Some(&instance.id), passed);
                }
                break checks.map(|()| Recovered::Serves(position));
            }
            if Instant::now() >= deadline {
                let hours = RECOVERY.as_secs() / 3600;
                break Err(Trouble::Failed(format!("it does not end within {hours} h")));
            }
            std::thread::sleep(LOOK);
        };
        // In order, so that what it leaves is whole.
        let ended = run.end(libc::SIGINT, END).map_err(|failure| Trouble::Failed(failure.reason));
        result.and_then(|result| ended.map(|()| result))
    }

    /// How far the data of an instance goes, if it takes writes.
    fn serves(&self, socket: &Path) -> Option<u64> {
        let ask = async {
            let ask = async { self.engine.connect(socket).await?.state().await };
            tokio::time::timeout(ANSWER, ask).await
        };
        let state = self.machine.databases.runtime.block_on(ask).ok()?.ok()?;
        (state.role == Role::Primary).then_some(state.position)
    }

    /// Runs programs that check something.
    fn checks(
        &self,
        checks: Vec<Check>,
        target: &Target<'_>,
        beside: Option<&InstanceId>,
        passed: &mut Vec<String>,
    ) -> Result<(), Trouble> {
        for Check { what, program } in checks {
            let volumes = match beside {
                None => self.volumes(target, None),
                Some(_) => vec![self.sockets(target)],
            };
            // What reads all of it and writes nothing takes as long as it is large.
            let run = Run { patience: RECOVERY, ..self.run("check", target.sockets, volumes) };
            match run.to_its_end(&program) {
                Ok(()) => passed.push(what.to_owned()),
                Err(failure) if failure.lacks => {}
                Err(failure) if failure.by_status && !self.is_called_off() => {
                    return Err(Trouble::Damaged(vec![format!("{what}: {}", failure.reason)]));
                }
                // Want of memory, of room or of patience says nothing of the data.
                Err(failure) => return Err(Trouble::Failed(failure.reason)),
            }
        }
        Ok(())
    }

    fn sockets(&self, target: &Target<'_>) -> VolumeMount {
        VolumeMount {
            source: target.sockets.to_owned(),
            path: self.engine.layout().sockets.to_owned(),
            read_only: true,
            own: false,
        }
    }

    /// The data, and the sockets; of `own` the directory that is written to.
    fn volumes(&self, target: &Target<'_>, own: Option<&InstanceId>) -> Vec<VolumeMount> {
        let layout = self.engine.layout();
        let writable = |source: PathBuf, path: String| VolumeMount {
            source,
            path,
            read_only: false,
            own: true,
        };
        let data = writable(target.data.to_owned(), layout.data.to_owned());
        let mut volumes = vec![data, self.sockets(target)];
        volumes.extend(own.map(|id| {
            writable(target.sockets.join(id.as_str()), format!("{}/{id}", layout.sockets))
        }));
        volumes
    }
}

/// Whether a segment was most probably whole only after an instant, so that later ones are not needed.
/// One that came over a standby may have a later time than it was written at.
fn ended_after(written: Timestamp, at: Timestamp) -> bool {
    written > at.after(MARGIN)
}

/// What is wrong with a file of the log.
pub(super) fn of_store(error: StoreError) -> Trouble {
    match error {
        StoreError::Absent { .. } | StoreError::Altered { .. } => {
            Trouble::Damaged(vec![error.to_string()])
        }
        error => Trouble::failed("read the log", &error),
    }
}
