//! Programs of an engine that run to their end in throw-away instances of a database's image.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_database::Program;

use super::used::size;
use crate::instance::client::ClientError;
use crate::instance::{self, StopPolicy, record};
use crate::launcher::ensure_running;
use crate::launcher::protocol::{
    DirectoryMount, Exit, Labels, LaunchSpec, Stage, VolumeMount, WritableMount,
};
use crate::local::Machine;
use crate::local::create::{PATH, chain, stage};
use crate::logs;

/// A program that fills a directory which has not grown for so long will not end.
pub(super) const STALLED: Duration = Duration::from_secs(120);
/// From one look at the size of a directory to the next.
const GROWTH: Duration = Duration::from_secs(10);
/// From one look whether a program has ended to the next.
const LOOK: Duration = Duration::from_millis(10);
/// The last lines of a program that has failed.
const LINES: usize = 12;

/// Why something was not made, and the last lines of the program that did not do it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) words: Vec<String>,
    /// Whether the image has no such program.
    pub(super) lacks: bool,
    /// Whether the program itself said so, by its status.
    pub(super) by_status: bool,
}

impl Failure {
    pub(super) fn called_off() -> Self {
        Self::because("it is not wanted any more".to_owned())
    }

    pub(super) fn of(what: &str, error: &dyn std::error::Error) -> Self {
        Self::because(format!("{what}: {}", chain(error)))
    }

    /// A failure that no program has told.
    pub(super) fn because(reason: String) -> Self {
        Self { reason, words: Vec::new(), lacks: false, by_status: false }
    }
}

/// A throw-away instance for a program.
pub(super) struct Run<'a> {
    pub(super) machine: &'a Arc<Machine>,
    /// The instance as one of a server.
    pub(super) spec: &'a LaunchSpec,
    /// The user as whom the program runs.
    pub(super) user: &'a str,
    /// The name of the throw-away instance.
    pub(super) name: String,
    /// What it is for, as it is shown.
    pub(super) of: String,
    pub(super) volumes: Vec<VolumeMount>,
    /// The directory that grows while the program gets on.
    pub(super) grows: &'a Path,
    /// How long it may not grow.
    pub(super) patience: Duration,
    pub(super) called_off: &'a dyn Fn() -> bool,
}

impl Run<'_> {
    /// Runs the program, waits for its end, and removes all that there was of it.
    pub(super) fn to_its_end(&self, program: &Program) -> Result<(), Failure> {
        let what = name_of(program);
        self.begin(program)?;
        let failure = match self.wait(&what) {
            Ok(exit) => self.failure(&what, exit),
            Err(failure) => Some(Failure { words: self.words(), ..failure }),
        };
        let gone = self.throw_away();
        failure.map_or(gone, Err)
    }

    /// Starts the program.
    pub(super) fn begin(&self, program: &Program) -> Result<(), Failure> {
        let what = name_of(program);
        let mut spec = with_program(self.spec, self.user, program);
        spec.volumes.clone_from(&self.volumes);
        spec.labels = Labels { component: self.of.clone(), ..Labels::default() };
        spec.instance.clone_from(&self.name);
        spec.hostname.clone_from(&self.name);
        spec.network = None;
        let mut launcher = ensure_running(&self.machine.root, &self.machine.exe)
            .map_err(|error| Failure::of(&what, &error))?;
        let lacks = |error: &ClientError| stage(error) == Some(Stage::Exec);
        launcher
            .launch(spec)
            .map(drop)
            .map_err(|error| Failure { lacks: lacks(&error), ..Failure::of(&what, &error) })
    }

    /// How the program has ended, if it has.
    pub(super) fn exit(&self) -> Option<Exit> {
        record::read_exit(&self.machine.root, &self.name).ok().flatten()
    }

    /// What is wrong with how a program has ended, if anything.
    pub(super) fn failure(&self, what: &str, exit: Exit) -> Option<Failure> {
        if matches!(exit, Exit { code: Some(0), .. }) {
            return None;
        }
        let words = self.words();
        let said = words.join(" | ");
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let (reason, by_status) = (format!("{what} {exit}{said}"), exit.code.is_some());
        Some(Failure { reason, words, lacks: false, by_status })
    }

    /// The last lines that it wrote.
    pub(super) fn words(&self) -> Vec<String> {
        let lines = logs::tail(&logs::directory(&self.machine.root, &self.name), LINES);
        lines.unwrap_or_default().into_iter().map(|line| line.text).collect()
    }

    /// Ends it, in order where there is `grace`, and removes all of it.
    pub(super) fn end(&self, signal: i32, grace: Duration) -> Result<(), Failure> {
        let policy = StopPolicy { signal, grace };
        let (root, cgroups) = (&self.machine.root, &self.machine.cgroups);
        instance::destroy(root, cgroups, &self.name, policy)
            .map_err(|error| Failure::of(&format!("end {}", self.name), &error))?;
        // A log that is left is no harm.
        let _ = logs::remove(&self.machine.root, &self.name);
        Ok(())
    }

    fn throw_away(&self) -> Result<(), Failure> {
        self.end(libc::SIGKILL, Duration::ZERO)
    }

    fn wait(&self, what: &str) -> Result<Exit, Failure> {
        let (mut grown, mut looked, mut bytes) = (Instant::now(), Instant::now(), 0);
        loop {
            if let Some(exit) = self.exit() {
                return Ok(exit);
            }
            if (self.called_off)() {
                return Err(Failure::called_off());
            }
            if looked.elapsed() >= GROWTH {
                let now = size(self.grows);
                if now != bytes {
                    (bytes, grown) = (now, Instant::now());
                }
                looked = Instant::now();
            }
            if grown.elapsed() >= self.patience {
                let seconds = self.patience.as_secs();
                let reason = format!("{what} has not come further for {seconds} s");
                return Err(Failure::because(reason));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Ends a throw-away instance of that name, if there is one, and removes all of it.
pub(super) fn throw_away(machine: &Machine, name: &str) -> Result<(), instance::DestroyError> {
    let policy = StopPolicy { signal: libc::SIGKILL, grace: Duration::ZERO };
    instance::destroy(&machine.root, &machine.cgroups, name, policy)?;
    // A log that is left is no harm.
    let _ = logs::remove(&machine.root, name);
    Ok(())
}

/// What a program is called.
pub(super) fn name_of(program: &Program) -> String {
    let name = program.argv.first().and_then(|path| path.rsplit('/').next());
    name.unwrap_or("a program").to_owned()
}

/// An instance with a program of the engine in it.
pub(super) fn with_program(spec: &LaunchSpec, user: &str, program: &Program) -> LaunchSpec {
    let mut spec = spec.clone();
    spec.argv.clone_from(&program.argv);
    spec.env = [("PATH".to_owned(), PATH.to_owned())].into();
    spec.env.extend(program.env.clone());
    user.clone_into(&mut spec.user);
    "/".clone_into(&mut spec.workdir);
    let writable = program.writable.iter().map(|(path, size)| WritableMount {
        path: path.clone(),
        size_bytes: *size,
        mode: 0o1777,
        exec: false,
    });
    spec.writable = writable.collect();
    let directories = program.directories.iter();
    let directories = directories
        .map(|(path, files)| DirectoryMount { path: path.clone(), files: files.clone() });
    spec.directories = directories.collect();
    spec
}
