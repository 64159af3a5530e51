//! The instances that the launcher knows, from their birth to their being forgotten.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    waitid,
};

use super::child::EXECUTING;
use super::images::Image;
use super::pipes;
use super::protocol::{Exit, InstanceState, LaunchError, Launched, NetworkAttachment, Stage};
use super::start::{Newborn, Starter, now_ms};
use crate::cgroup::Group;
use crate::instance::record;
use crate::logs::{self, LogWriter, Stream};

/// How long a child may take from clone to exec.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// The longest report of a child that is read, in bytes.
const MAX_REPORT_BYTES: usize = 16 << 10;

/// Who asked for a start: the connection and the id of the request.
pub(super) type Asker = (u32, u64);

/// One instance.
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) started_at_ms: u64,
    pub(super) phase: Phase,
    /// Standard output and error, as long as they are open.
    pub(super) output: [Option<OwnedFd>; 2],
    /// When it is to be killed, if it has not ended by then.
    pub(super) kill_at: Option<Instant>,
    group: Group,
    log: LogWriter,
    first_host_id: Option<u32>,
    network: Option<NetworkAttachment>,
    /// Keeps the image mounted.
    _image: Option<Image>,
}

/// How far an instance has come.
pub(super) enum Phase {
    /// Between clone and exec.
    Starting {
        socket: OwnedFd,
        report: Vec<u8>,
        asker: Asker,
        /// Why it will not run; its end is awaited.
        failure: Option<LaunchError>,
    },
    /// The program runs.
    Running,
}

/// What has become of a start.
pub(super) enum Birth {
    /// Not decided yet.
    Pending,
    /// The program runs.
    Running(Asker, Launched),
}

/// All instances.
#[derive(Default)]
pub(super) struct Table {
    pub(super) live: HashMap<u32, Instance>,
    ended: BTreeMap<String, InstanceState>,
    next_key: u32,
}

impl Table {
    /// Whether an instance of this name runs or is not yet forgotten.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.ended.contains_key(name) || self.key_of(name).is_some()
    }

    pub(super) fn key_of(&self, name: &str) -> Option<u32> {
        self.live.iter().find(|(_, instance)| instance.name == name).map(|(key, _)| *key)
    }

    pub(super) fn named(&mut self, name: &str) -> Option<&mut Instance> {
        self.live.values_mut().find(|instance| instance.name == name)
    }

    /// Takes in a child that has just been made.
    pub(super) fn add(
        &mut self,
        starter: &Starter,
        name: &str,
        newborn: Newborn,
        asker: Asker,
    ) -> u32 {
        let phase =
            Phase::Starting { socket: newborn.socket, report: Vec::new(), asker, failure: None };
        self.insert(Instance {
            name: name.to_owned(),
            pid: newborn.pid,
            pidfd: newborn.pidfd,
            started_at_ms: newborn.started_at_ms,
            phase,
            output: newborn.output.map(Some),
            kill_at: Some(Instant::now() + START_DEADLINE),
            group: newborn.group,
            log: LogWriter::new(&logs::directory(&starter.root, name)),
            first_host_id: newborn.first_host_id,
            network: newborn.network,
            _image: Some(newborn.image),
        })
    }

    /// Takes over an instance that an earlier launcher has left running, by its record. Gives
    /// nothing when it has ended; then that is recorded.
    pub(super) fn adopt(&mut self, starter: &mut Starter, name: &str) -> Option<u32> {
        let root = &starter.root;
        if record::read_exit(root, name).ok()?.is_some() {
            return None;
        }
        let record = record::read(root, name).ok()??;
        let group = starter.cgroups.group(name);
        let present = group.processes().contains(&record.pid);
        let pidfd = Pid::from_raw(record.pid)
            .filter(|_| present)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(pidfd) = pidfd else {
            let exit = Exit { code: None, signal: None, out_of_memory: false, at_ms: now_ms() };
            report("record an exit", record::write_exit(root, name, &exit));
            report("remove a control group", group.remove());
            return None;
        };
        if let Some(first) = record.first_host_id {
            starter.ids.keep(first);
        }
        let output = [1, 2].map(|number| pipes::reopen(record.pid, number).ok().flatten());
        Some(self.insert(Instance {
            name: name.to_owned(),
            pid: record.pid,
            pidfd,
            started_at_ms: record.started_at_ms,
            phase: Phase::Running,
            output,
            kill_at: None,
            group,
            log: LogWriter::new(&logs::directory(root, name)),
            first_host_id: record.first_host_id,
            network: record.network,
            _image: None,
        }))
    }

    fn insert(&mut self, instance: Instance) -> u32 {
        let key = self.next_key;
        self.next_key = self.next_key.wrapping_add(1);
        self.live.insert(key, instance);
        key
    }

    pub(super) fn list(&self) -> Vec<InstanceState> {
        let running = |instance: &&Instance| matches!(instance.phase, Phase::Running);
        let live = self.live.values().filter(running).map(Instance::state);
        let mut all: Vec<InstanceState> = live.chain(self.ended.values().cloned()).collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        all
    }

    /// Forgets an instance that has ended. Its files are the caller's.
    pub(super) fn forget(&mut self, name: &str) {
        self.ended.remove(name);
    }

    /// Takes out an instance whose process has ended, and tells how it ended.
    pub(super) fn reap(&mut self, starter: &mut Starter, key: u32) -> Option<Reaped> {
        let mut instance = self.live.remove(&key)?;
        let exit = instance.wait();
        for (pipe, stream) in instance.output.iter().zip(STREAMS) {
            if let Some(pipe) = pipe {
                pipes::drain(pipe, stream, &mut instance.log);
            }
        }
        if let Some(first) = instance.first_host_id {
            starter.ids.give_back(first);
        }
        let (failed, born) = match instance.read_report() {
            Birth::Running(asker, launched) => (None, Some((asker, launched))),
            Birth::Pending => (instance.failed_start(&exit), None),
        };
        if failed.is_none() {
            let state = InstanceState { exit: Some(exit.clone()), ..instance.state() };
            self.ended.insert(instance.name.clone(), state);
        }
        let Instance { name, group, network, .. } = instance;
        Some(Reaped { name, group, network, exit, born, failed })
    }
}

/// An instance that has ended.
pub(super) struct Reaped {
    pub(super) name: String,
    pub(super) group: Group,
    pub(super) network: Option<NetworkAttachment>,
    pub(super) exit: Exit,
    /// Set when its start is first known of by its end.
    pub(super) born: Option<(Asker, Launched)>,
    /// Set when it never ran.
    pub(super) failed: Option<(Asker, LaunchError)>,
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Instance {
    /// Reads what the child has reported; it closes its socket by the exec or by ending.
    pub(super) fn read_report(&mut self) -> Birth {
        let Phase::Starting { socket, report, asker, failure } = &mut self.phase else {
            return Birth::Pending;
        };
        let mut buffer = [0; 1024];
        loop {
            match rustix::net::recv(&*socket, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, 0)) => break,
                Ok((_, count)) if report.len() < MAX_REPORT_BYTES => {
                    report.extend_from_slice(&buffer[..count]);
                }
                Err(Errno::AGAIN) => return Birth::Pending,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if *report == [EXECUTING] {
            let asker = *asker;
            self.phase = Phase::Running;
            self.kill_at = None;
            let launched = Launched { pid: self.pid, started_at_ms: self.started_at_ms };
            return Birth::Running(asker, launched);
        }
        let text = report.strip_prefix(&[EXECUTING]).unwrap_or(report);
        if failure.is_none() {
            *failure = serde_json::from_slice(text).ok();
        }
        Birth::Pending
    }

    fn state(&self) -> InstanceState {
        InstanceState {
            instance: self.name.clone(),
            pid: self.pid,
            started_at_ms: self.started_at_ms,
            exit: None,
        }
    }

    /// Reaps the process, which has ended.
    fn wait(&self) -> Exit {
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        // An adopted instance is not a child; only that it has ended can be known.
        let status = status.ok().flatten();
        Exit {
            code: status.as_ref().and_then(WaitIdStatus::exit_status),
            signal: status.as_ref().and_then(WaitIdStatus::terminating_signal),
            out_of_memory: self.group.oom_kills() > 0,
            at_ms: now_ms(),
        }
    }

    /// The failure of a start whose process has ended; none if the program ran.
    fn failed_start(&mut self, exit: &Exit) -> Option<(Asker, LaunchError)> {
        let Phase::Starting { asker, failure, .. } = &mut self.phase else { return None };
        let error = failure.take().unwrap_or_else(|| {
            let text = format!("the process {exit} before its program ran");
            LaunchError::new(Stage::Ended, text)
        });
        Some((*asker, error))
    }

    /// Moves output to the log. Gives true when that pipe is done with.
    pub(super) fn pump(&mut self, index: usize) -> bool {
        let (Some(stream), Some(slot)) = (STREAMS.get(index), self.output.get_mut(index)) else {
            return false;
        };
        let closed = slot
            .as_ref()
            .is_some_and(|pipe| pipes::pump(pipe, *stream, &mut self.log) == pipes::Turn::Closed);
        if closed {
            *slot = None;
        }
        closed
    }

    /// Asks the main process to end, and sets when it will be ended.
    pub(super) fn stop(&mut self, signal: i32, grace: Duration) {
        if is_deaf_to(self.pid, signal) {
            return self.kill();
        }
        let Some(signal) = Signal::from_named_raw(signal) else { return self.kill() };
        let _ = pidfd_send_signal(&self.pidfd, signal);
        let at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Ends every process of the instance: with process 1 goes its whole pid namespace.
    pub(super) fn kill(&mut self) {
        self.kill_at = None;
        // It may have ended by itself, which is what is wanted.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.group.kill();
    }

    /// Ends it because its deadline has passed.
    pub(super) fn expire(&mut self) {
        if let Phase::Starting { failure, .. } = &mut self.phase {
            failure.get_or_insert_with(|| {
                let text = format!("the program did not start within {START_DEADLINE:?}");
                LaunchError::new(Stage::Deadline, text)
            });
        }
        self.kill();
    }
}

/// Whether `signal` would be lost on the process. The kernel spares process 1 of a pid namespace
/// every signal that it has not asked for, so a program that neither handles nor awaits the
/// signal, and would be ended by it anywhere else, would not even notice.
fn is_deaf_to(pid: i32, signal: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift));
        mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
    };
    // A blocked signal is awaited by other means: sigwait, signalfd.
    !["SigCgt:", "SigBlk:", "SigIgn:"].into_iter().any(has)
}

/// Says in the launcher's log what could not be done and has no one to be told.
pub(super) fn report<E: std::error::Error>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        eprintln!("launcher: cannot {what}: {error}");
    }
}
