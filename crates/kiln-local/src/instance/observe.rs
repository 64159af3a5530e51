//! Which instances there really are, read from the kernel and joined with their records.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::baseline::Baseline;
use super::record::{self, Record};
use crate::cgroup::Cgroups;
use crate::launcher::protocol::Exit;

/// An instance, as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its id: the name of its control group or of its record.
    pub instance: String,
    /// What of it there is.
    pub presence: Presence,
    /// The main process, if it is there.
    pub main: Option<Process>,
    /// The processes in its control group, as the host numbers them.
    pub processes: Vec<i32>,
    /// What it was made as.
    pub record: Option<Record>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// What there is of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Its main process, control groups and record: a whole instance.
    Running,
    /// Its record, and perhaps an exit; its main process has ended.
    Ended,
    /// Something in the kernel without a record: half made, or not made by a launcher.
    Orphaned,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id, as the host sees it.
    pub pid: i32,
    /// The kernel's letter for its state (`proc_pid_stat(5)`), such as `S`; `Z` is a zombie.
    pub state: char,
    /// When it was started: clock ticks since the boot. Tells it from another of the same id.
    pub started_ticks: u64,
}

/// All instances of the root at `root`, by id.
pub fn observe_instances(root: &Path, cgroups: &Cgroups) -> io::Result<Vec<Observed>> {
    let mut names: BTreeSet<String> = record::list(root)?.into_iter().collect();
    names.extend(cgroups.list().map_err(io::Error::other)?);
    let boot = record::boot_id()?;
    Ok(names.into_iter().map(|name| observe(root, cgroups, &boot, name)).collect())
}

fn observe(root: &Path, cgroups: &Cgroups, boot: &str, instance: String) -> Observed {
    // A record that cannot be read is none: what it belongs to is then an orphan.
    let record = record::read(root, &instance).unwrap_or_default();
    let exit = record::read_exit(root, &instance).unwrap_or_default();
    // One hierarchy tells of all, unless somebody has moved one: that is the guard's to find.
    let processes = cgroups.group(&instance).members();
    let main = record.as_ref().filter(|record| record.boot == boot).and_then(|record| {
        let main = process(record.pid)?;
        // One that was moved out of all its groups is told from another of its number by its start.
        let is_it = processes.contains(&record.pid)
            || Baseline::read(root, &instance).ok().flatten()?.started_ticks == main.started_ticks;
        is_it.then_some(main)
    });
    let presence = match (&record, &main) {
        (Some(_), Some(main)) if main.state != 'Z' => Presence::Running,
        (Some(_), _) => Presence::Ended,
        (None, _) => Presence::Orphaned,
    };
    Observed { instance, presence, main, processes, record, exit }
}

/// Whether the main process of an instance is there, by its record alone.
pub(crate) fn is_running(root: &Path, record: &Record) -> io::Result<bool> {
    if record.boot != record::boot_id()? {
        return Ok(false);
    }
    let baseline = Baseline::read(root, &record.instance).unwrap_or_default();
    Ok(process(record.pid).is_some_and(|main| {
        let is_it = baseline.is_none_or(|it| it.started_ticks == main.started_ticks);
        main.state != 'Z' && is_it
    }))
}

/// Reads /proc/PID/stat; none when the process is gone.
pub(super) fn process(pid: i32) -> Option<Process> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    // The command in parentheses may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Numbered from 1 in proc_pid_stat(5): state is field 3, starttime field 22.
    let state = fields.first()?.chars().next()?;
    Some(Process { pid, state, started_ticks: fields.get(19)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_forge_the_fields_behind_it() {
        let stat = "77 (a) Z 1 (b) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let expected = Process { pid: 77, state: 'S', started_ticks: 4242 };
        assert_eq!(parse_stat(77, stat), Some(expected));
    }
}
