//! The guard's thread: what it hears, and what it does about it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kiln_engine::guard::Source;
use kiln_model::drift::{Aspect, Drift};
use kiln_netns::Namespace;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connector::{Connector, Happening};
use super::due::Due;
use super::ears::{InstanceEars, NetworkEars};
use super::files::{Files, Written};
use super::pace::{Pace, timed, worked};
use super::strangers::Strangers;
use super::sweep::{self, Sweep};
use super::{Guard, launcher_pid, lock};
use crate::guard::{Whole, name_of};
use crate::local::Machine;
use crate::network::Networks;

/// From one look at the clock to the next.
const BEAT: Duration = Duration::from_millis(100);
/// What was hindered for so long may have missed anything.
const HINDERED: Duration = Duration::from_secs(1);
/// Answers to what is told are so far apart at least: however much is told, they cost no more.
const APART: Duration = Duration::from_millis(10);
/// The same for what has all of a kind looked at, of which also others give reason: so many times as
/// long as a look takes, within bounds.
const TIMES: u32 = 200;
const SOONEST: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(5);
/// The same for what has all processes of the machine looked at.
const STRANGERS_APART: Duration = Duration::from_secs(1);
/// Thousandths of one processor for the looks whether main processes run.
const STANDSTILL: u32 = 1;

const BELL: u64 = 0;
const PROCESSES: u64 = 1;
const FILES: u64 = 2;
/// The first number of what comes and goes.
const FIRST: u64 = 16;

/// Whose ears have heard something.
#[derive(Clone)]
enum Heard {
    Mounts(String),
    Interior(String),
    Network(String),
}

/// Guards for as long as there is a machine. To be called on a thread of its own.
pub(in crate::local) fn run(machine: &Weak<Machine>) {
    let Some((guard, networks)) =
        machine.upgrade().map(|it| (it.guard.clone(), it.networks.clone()))
    else {
        return;
    };
    make_room();
    match Turn::new(guard, networks) {
        Ok(mut turn) => {
            while machine.strong_count() > 0 {
                turn.turn();
            }
        }
        Err(error) => eprintln!("kiln: nothing is guarded: {error}"),
    }
}

/// Room for the descriptors of what is listened to, three for each instance. Where there is none,
/// the sweep comes by.
fn make_room() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("kiln: the bound on open files is not raised: {error}");
    }
}

struct Turn {
    guard: Arc<Guard>,
    networks: Networks,
    epoll: OwnedFd,
    connector: Option<Connector>,
    files: Option<Files>,
    ears: HashMap<u64, Heard>,
    next: u64,
    due: Due,
    strangers: Strangers,
    standstill: Pace,
    sweep: Sweep,
    beat: Instant,
    answered: Instant,
    moves_apart: Duration,
    settings_apart: Duration,
}

impl Turn {
    fn new(guard: Arc<Guard>, networks: Networks) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let add = |fd: BorrowedFd<'_>, number| {
            epoll::add(&epoll, fd, EventData::new_u64(number), EventFlags::IN)
        };
        let connector =
            Connector::open().and_then(|it| Ok(add(it.as_fd(), PROCESSES).map(|()| it)?));
        let files = Files::watch(guard.cgroups.hierarchies())
            .and_then(|it| Ok(add(it.queue.as_fd(), FILES).map(|()| it)?));
        if let Some(bell) = &guard.bell {
            add(bell.as_fd(), BELL)?;
        }
        tell_what_is_not_granted(&guard, &connector, &files);
        let now = Instant::now();
        let mut turn = Self {
            guard,
            networks,
            epoll,
            connector: connector.ok(),
            files: files.ok(),
            ears: HashMap::new(),
            next: FIRST,
            due: Due::default(),
            strangers: Strangers::default(),
            standstill: Pace::new(STANDSTILL, Duration::from_millis(1), now),
            sweep: Sweep::new(now),
            beat: now,
            answered: now,
            moves_apart: SOONEST,
            settings_apart: SOONEST,
        };
        turn.take_up();
        Ok(turn)
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let until = self.due.next().map_or(self.beat + BEAT, |due| due.min(self.beat + BEAT));
        let wait = Timespec::try_from(until.saturating_duration_since(now)).unwrap_or_default();
        let mut events = Vec::with_capacity(64);
        // Interrupted or not, the clock is looked at.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait));
        if !events.is_empty() {
            std::thread::sleep(APART.saturating_sub(self.answered.elapsed()));
            self.answered = Instant::now();
        }
        for event in &events {
            self.hear(event.data.u64());
        }
        self.answer();
        let now = Instant::now();
        if now.saturating_duration_since(self.beat) >= BEAT {
            let hindered = now.saturating_duration_since(self.beat) >= HINDERED;
            self.beat = now;
            self.on_beat(hindered);
        }
    }

    /// The processes that make instances and networks, and may write to what is theirs.
    fn own(&self) -> Vec<i32> {
        let daemon = i32::try_from(std::process::id()).unwrap_or(0);
        std::iter::once(daemon).chain(launcher_pid(&self.guard.root)).collect()
    }

    fn hear(&mut self, number: u64) {
        let now = Instant::now();
        match number {
            BELL => {
                let mut count = [0; 8];
                let _ = self.guard.bell.as_ref().map(|bell| rustix::io::read(bell, &mut count));
                self.take_up();
            }
            PROCESSES => self.hear_processes(now),
            FILES => self.hear_files(now),
            _ => self.hear_ears(number, now),
        }
    }

    fn hear_processes(&mut self, now: Instant) {
        let Some(connector) = &self.connector else { return };
        let (happened, lost) = connector.hear();
        let mut skipped = u64::from(lost);
        let count = happened.len();
        for one in happened {
            match one {
                Happening::Executed(pid) => skipped += u64::from(!self.due.execute(pid, now)),
                Happening::Traced { process, tracer } => self.due.traced.push((process, tracer)),
            }
        }
        if skipped > 0 {
            self.due.strangers.note(now, Duration::ZERO, STRANGERS_APART);
        }
        let mut report = lock(&self.guard.report);
        report.heard(Source::Processes, count);
        report.skipped += skipped;
    }

    fn hear_files(&mut self, now: Instant) {
        let own = self.own();
        let Some(files) = &self.files else { return };
        let (mut groups, mut settings) = (0, 0);
        for written in files.hear(&self.guard.membership, &own) {
            match written {
                Written::Group { instance, moves } => {
                    groups += 1;
                    self.due.groups.insert(instance);
                    if moves {
                        self.due.moves.note(now, Duration::ZERO, self.moves_apart);
                    }
                }
                Written::Elsewhere => {
                    groups += 1;
                    self.due.moves.note(now, Duration::ZERO, self.moves_apart);
                }
                Written::Setting => {
                    settings += 1;
                    self.due.settings.note(now, Duration::ZERO, self.settings_apart);
                }
                Written::Unknown => {
                    groups += 1;
                    self.due.moves.note(now, Duration::ZERO, self.moves_apart);
                    self.due.settings.note(now, Duration::ZERO, self.settings_apart);
                    let all = self.guard.instances_now();
                    self.due.groups.extend(all.iter().map(|it| it.id.clone()));
                }
            }
        }
        let mut report = lock(&self.guard.report);
        report.heard(Source::Cgroups, groups);
        report.heard(Source::Settings, settings);
    }

    fn hear_ears(&mut self, number: u64, now: Instant) {
        let Some(heard) = self.ears.get(&number).cloned() else { return };
        let source = match heard {
            Heard::Mounts(id) => {
                if self.guard.instance(&id).is_none() {
                    self.ears.remove(&number);
                    return;
                }
                self.due.mounts.insert(id);
                Source::Mounts
            }
            Heard::Interior(id) => {
                let Some(watched) = self.guard.instance(&id) else { return };
                let ears = lock(&watched.ears);
                ears.as_ref().and_then(InstanceEars::network).map(crate::network::Listener::hear);
                self.due.interiors.note(id, now);
                Source::Networks
            }
            Heard::Network(id) => {
                let Some(network) = self.guard.network(&id) else { return };
                lock(&network.ears).as_ref().map(|ears| ears.network.hear());
                self.due.networks.note(id, now);
                Source::Networks
            }
        };
        lock(&self.guard.report).heard(source, 1);
    }

    /// Looks at what was told of.
    fn answer(&mut self) {
        let now = Instant::now();
        self.answer_processes(now);
        self.answer_instances(now);
        self.answer_networks(now);
    }

    fn answer_processes(&mut self, now: Instant) {
        let guard = self.guard.clone();
        for (process, tracer) in std::mem::take(&mut self.due.traced) {
            traced(&guard, process, tracer);
        }
        for pid in std::mem::take(&mut self.due.executed) {
            self.executed(pid);
        }
        if self.due.strangers.take(now) {
            let all = Strangers::processes(&self.own());
            self.strangers.look(&guard, &all, Source::Processes);
        }
    }

    fn answer_instances(&mut self, now: Instant) {
        let guard = &self.guard;
        for id in std::mem::take(&mut self.due.mounts) {
            if let Some(watched) = guard.instance(&id) {
                guard.note(&watched, watched.subject.mounts(), Source::Mounts);
            }
        }
        for id in std::mem::take(&mut self.due.groups) {
            if let Some(watched) = guard.instance(&id) {
                guard.look(&watched, Whole::Joined, Source::Cgroups);
            }
        }
        if self.due.moves.take(now) {
            let looked = timed(|| {
                for watched in guard.instances_now() {
                    let moved = watched.subject.membership(watched.subject.main);
                    let moved = moved.filter(|_| watched.subject.is_alive());
                    guard.note(&watched, moved.into_iter().collect(), Source::Cgroups);
                }
            });
            self.moves_apart = apart(looked);
        }
    }

    fn answer_networks(&mut self, now: Instant) {
        for id in self.due.interiors.take(now) {
            self.look_inside(&id, Source::Networks);
        }
        for id in self.due.networks.take(now) {
            self.look_at_network(&id);
        }
        if self.due.settings.take(now) {
            let looked = timed(|| {
                for watched in self.guard.instances_now() {
                    self.look_inside(&watched.id, Source::Settings);
                }
                for network in self.guard.networks_now() {
                    self.look_at_network(network.labels.id.as_str());
                }
            });
            self.settings_apart = apart(looked);
        }
    }

    fn look_inside(&self, id: &str, source: Source) {
        if let Some(watched) = self.guard.instance(id).filter(|watched| watched.is_sound()) {
            self.guard.note(&watched, watched.subject.network(), source);
        }
    }

    fn look_at_network(&self, id: &str) {
        if let Some(stack) = sweep::changed(&self.guard, &self.networks, id) {
            self.guard.changes.wake(&stack);
        }
    }

    fn executed(&self, pid: i32) {
        let guard = &self.guard;
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return };
        let inside = guard.membership.instances(&text).next().and_then(|id| guard.instance(id));
        if let Some(watched) = inside {
            if watched.is_sound() {
                guard.note(&watched, watched.subject.member(pid), Source::Processes);
            }
        } else {
            self.strangers.look(guard, &[pid], Source::Processes);
        }
    }

    fn on_beat(&mut self, hindered: bool) {
        let guard = self.guard.clone();
        if self.standstill.may(self.beat) {
            let looked = timed(|| {
                for watched in guard.instances_now().iter().filter(|it| it.is_sound()) {
                    guard.note(watched, watched.subject.standstill(), Source::Standstill);
                }
            });
            self.standstill.spend(looked);
        }
        let own = self.own();
        if hindered {
            self.take_up();
            self.sweep.all(&guard, &self.networks, &self.strangers, &own);
        } else {
            self.sweep.step(&guard, &self.networks, &self.strangers, &own);
        }
        lock(&guard.report).worked(worked(), self.beat);
    }

    /// Listens to what is new.
    fn take_up(&mut self) {
        let guard = self.guard.clone();
        guard.reconcile();
        self.ears.retain(|_, heard| match heard {
            Heard::Mounts(id) | Heard::Interior(id) => guard.instance(id).is_some(),
            Heard::Network(id) => guard.network(id).is_some(),
        });
        for watched in guard.instances_now() {
            let mut ears = lock(&watched.ears);
            if ears.is_some() || !watched.is_sound() {
                continue;
            }
            // One that has ended meanwhile has nothing to be heard.
            let Ok(opened) = InstanceEars::open(&watched.subject) else { continue };
            self.listen(opened.mounts(), Heard::Mounts(watched.id.clone()), EventFlags::PRI);
            for socket in opened.network().into_iter().flat_map(|it| it.sockets()) {
                self.listen(socket, Heard::Interior(watched.id.clone()), EventFlags::IN);
            }
            // What has changed before it was listened to.
            self.due.mounts.insert(watched.id.clone());
            self.due.interiors.note(watched.id.clone(), Instant::now());
            *ears = Some(opened);
        }
        for network in guard.networks_now() {
            let mut ears = lock(&network.ears);
            if ears.is_some() {
                continue;
            }
            let id = network.labels.id.to_string();
            let opened = Namespace::open(self.networks.path(&id)).map_err(io::Error::other);
            // One that is being made is met again when it is.
            let Ok(opened) = opened.and_then(|it| NetworkEars::open(&it)) else { continue };
            for socket in opened.network.sockets() {
                self.listen(socket, Heard::Network(id.clone()), EventFlags::IN);
            }
            self.due.networks.note(id, Instant::now());
            *ears = Some(opened);
        }
        self.strangers.refresh(&guard);
    }

    fn listen(&mut self, fd: BorrowedFd<'_>, heard: Heard, flags: EventFlags) {
        // Where it fails, the sweep comes by.
        if epoll::add(&self.epoll, fd, EventData::new_u64(self.next), flags).is_ok() {
            self.ears.insert(self.next, heard);
            self.next += 1;
        }
    }
}

/// How far apart looks are that take so long.
fn apart(looked: Duration) -> Duration {
    (looked * TIMES).clamp(SOONEST, LATEST)
}

/// Notes what this kernel does not grant, and why.
fn tell_what_is_not_granted(
    guard: &Guard,
    connector: &io::Result<Connector>,
    files: &io::Result<Files>,
) {
    let (groups, settings) = match files {
        Ok(files) => (files.groups.as_ref().err(), files.settings.as_ref().err()),
        Err(error) => (Some(error), Some(error)),
    };
    let all = [
        (Source::Processes, connector.as_ref().err()),
        (Source::Cgroups, groups),
        (Source::Settings, settings),
    ];
    let refused = all.into_iter().filter_map(|(source, error)| Some((source, error?.to_string())));
    lock(&guard.report).deaf.extend(refused);
}

/// A process has begun to trace another.
fn traced(guard: &Guard, process: i32, tracer: i32) {
    let of = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        guard.membership.instances(&text).next().map(str::to_owned)
    };
    let Some(instance) = of(process).filter(|instance| of(tracer).as_ref() != Some(instance))
    else {
        return;
    };
    if let Some(watched) = guard.instance(&instance) {
        let found = format!("{} was traced by {}", name_of(process), name_of(tracer));
        let drift = Drift::new(Aspect::Ptrace, "traced by nobody", found);
        guard.note(&watched, vec![drift], Source::Processes);
    }
}
