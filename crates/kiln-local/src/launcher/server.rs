//! The launcher's loop: requests, births, output and deaths, each in bounded turns.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{SocketFlags, accept_with};

use super::clients::{Client, Clients};
use super::protocol::{Answer, Envelope, Event, LaunchSpec, Message, Refusal, Request, VERSION};
use super::start::Starter;
use super::table::{Birth, Phase, Table, report};
use crate::cgroup::Group;
use crate::instance::baseline::Baseline;
use crate::instance::record;

/// How many events are taken at a time.
const BATCH: usize = 64;
/// How long to wait before a control group that is still busy is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// What an event of the loop is about; travels through the kernel as 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener,
    Client(u32),
    Birth(u32),
    Output(u32, usize),
    Death(u32),
}

impl Source {
    fn pack(self) -> EventData {
        let (kind, key) = match self {
            Self::Listener => (0, 0),
            Self::Client(key) => (1, key),
            Self::Birth(key) => (2, key),
            Self::Output(key, 0) => (3, key),
            Self::Output(key, _) => (4, key),
            Self::Death(key) => (5, key),
        };
        EventData::new_u64((kind << 32) | u64::from(key))
    }

    fn unpack(data: EventData) -> Self {
        let [k0, k1, k2, k3, kind, ..] = data.u64().to_le_bytes();
        let key = u32::from_le_bytes([k0, k1, k2, k3]);
        match kind {
            0 => Self::Listener,
            1 => Self::Client(key),
            2 => Self::Birth(key),
            3 => Self::Output(key, 0),
            4 => Self::Output(key, 1),
            _ => Self::Death(key),
        }
    }
}

/// The launcher at work.
pub(super) struct Server {
    pub(super) starter: Starter,
    epoll: OwnedFd,
    listener: OwnedFd,
    clients: Clients,
    table: Table,
    /// Groups that were still busy when their instance had ended.
    leftovers: Vec<Group>,
    idle_limit: Duration,
    idle_since: Instant,
    ending: bool,
}

impl Server {
    /// A server on `listener`, which ends after `idle_limit` without instances and clients.
    pub(super) fn new(
        starter: Starter,
        listener: OwnedFd,
        idle_limit: Duration,
    ) -> io::Result<Self> {
        let server = Self {
            starter,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            listener,
            clients: Clients::default(),
            table: Table::default(),
            leftovers: Vec::new(),
            idle_limit,
            idle_since: Instant::now(),
            ending: false,
        };
        server.watch(server.listener.as_fd(), Source::Listener)?;
        Ok(server)
    }

    /// Takes over the instances that an earlier launcher has left.
    pub(super) fn adopt(&mut self) -> io::Result<()> {
        for name in record::list(&self.starter.root)? {
            if let Some(key) = self.table.adopt(&mut self.starter, &name) {
                self.watch_instance(key)?;
            }
        }
        Ok(())
    }

    /// Serves until there is nothing left to do.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(BATCH);
        while !self.ending {
            events.clear();
            let timeout = self.next_deadline().map(|at| {
                let wait = at.saturating_duration_since(Instant::now());
                // Rounded up: a wait that ends early would turn into a busy loop.
                Timespec::try_from(wait + Duration::from_millis(1)).unwrap_or_default()
            });
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            for event in &events {
                self.turn(Source::unpack(event.data));
            }
            self.run_timers();
        }
        Ok(())
    }

    fn watch(&self, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, source.pack(), EventFlags::IN)?)
    }

    fn turn(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Client(number) => self.hear(number),
            Source::Birth(key) => self.birth(key),
            Source::Output(key, index) => {
                if let Some(instance) = self.table.live.get_mut(&key) {
                    instance.pump(index);
                }
            }
            Source::Death(key) => self.death(key),
        }
    }

    fn accept(&mut self) {
        let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) else { return };
        let trusted =
            rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root());
        if !trusted {
            return;
        }
        let number = self.clients.add(Client::new(socket));
        let watched = self.watch(self.clients.all[&number].socket.as_fd(), Source::Client(number));
        if let Err(error) = watched {
            report("watch a connection", Err(error));
            self.drop_client(number);
        }
    }

    fn hear(&mut self, number: u32) {
        let Some(client) = self.clients.all.get_mut(&number) else { return };
        let messages = client.flush().and_then(|()| client.receive());
        let Ok(messages) = messages else { return self.drop_client(number) };
        for message in messages {
            self.request(number, &message);
        }
        self.watch_output(number);
    }

    fn request(&mut self, number: u32, message: &[u8]) {
        /// The part of a request that every version has.
        #[derive(serde::Deserialize)]
        struct Head {
            version: u32,
            id: u64,
        }
        let Ok(head) = serde_json::from_slice::<Head>(message) else {
            return self.drop_client(number);
        };
        if head.version != VERSION {
            return self.reply((number, head.id), Err(Refusal::Version(VERSION)));
        }
        match serde_json::from_slice::<Envelope>(message) {
            Ok(envelope) => self.act((number, envelope.id), envelope.request),
            Err(error) => {
                let refusal = Refusal::Malformed(error.to_string());
                self.reply((number, head.id), Err(refusal));
            }
        }
    }

    fn act(&mut self, asker: (u32, u64), request: Request) {
        let result = match request {
            Request::Launch(spec) => match self.launch(asker, &spec) {
                // Answered when the program runs.
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Stop { instance, signal, grace_ms } => self.end(&instance, |running| {
                running.stop(signal, Duration::from_millis(grace_ms));
            }),
            Request::Kill { instance } => self.end(&instance, super::table::Instance::kill),
            Request::List => Ok(Answer::Instances(self.table.list())),
            Request::Forget { instance } => self.forget(instance),
            Request::Subscribe => {
                if let Some(client) = self.clients.all.get_mut(&asker.0) {
                    client.subscribed = true;
                }
                Ok(Answer::Done)
            }
            Request::Shutdown if self.table.live.is_empty() => {
                self.ending = true;
                Ok(Answer::Done)
            }
            Request::Shutdown => Err(Refusal::Busy(self.table.live.len())),
        };
        self.reply(asker, result);
    }

    fn launch(&mut self, asker: (u32, u64), spec: &LaunchSpec) -> Result<(), Refusal> {
        if self.table.holds(&spec.instance) {
            return Err(Refusal::Exists(spec.instance.clone()));
        }
        let started = self.starter.start(spec).map_err(|error| {
            self.tidy_up();
            Refusal::Launch(error)
        })?;
        let key = self.table.add(&self.starter, &spec.instance, started, asker);
        if let Err(error) = self.watch_instance(key) {
            // Without events its deadline ends it.
            report("watch an instance", Err(error));
        }
        Ok(())
    }

    fn end(
        &mut self,
        name: &str,
        how: impl FnOnce(&mut super::table::Instance),
    ) -> Result<Answer, Refusal> {
        if !self.table.holds(name) {
            return Err(Refusal::Unknown(name.to_owned()));
        }
        // One that has ended needs no more.
        if let Some(instance) = self.table.named(name) {
            how(instance);
        }
        Ok(Answer::Done)
    }

    fn forget(&mut self, name: String) -> Result<Answer, Refusal> {
        if self.table.key_of(&name).is_some() {
            return Err(Refusal::Running(name));
        }
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(Refusal::Unknown(name));
        }
        self.table.forget(&name);
        report("remove a record", record::remove(&self.starter.root, &name));
        Ok(Answer::Done)
    }

    fn watch_instance(&self, key: u32) -> io::Result<()> {
        let Some(instance) = self.table.live.get(&key) else { return Ok(()) };
        self.watch(instance.pidfd.as_fd(), Source::Death(key))?;
        if let Phase::Starting { socket, .. } = &instance.phase {
            // Only its closing matters: what was said is read then.
            epoll::add(&self.epoll, socket, Source::Birth(key).pack(), EventFlags::RDHUP)?;
        }
        for (index, pipe) in instance.output.iter().enumerate() {
            if let Some(pipe) = pipe {
                self.watch(pipe.as_fd(), Source::Output(key, index))?;
            }
        }
        Ok(())
    }

    fn birth(&mut self, key: u32) {
        let Some(instance) = self.table.live.get_mut(&key) else { return };
        if let Phase::Starting { failure: Some(_), socket, .. } = &instance.phase {
            // All has been said; only the end is awaited.
            let _ = epoll::delete(&self.epoll, socket);
        }
        if let Birth::Running(asker, launched) = instance.read_report() {
            // Before anybody hears of it: what it is right after its start is what it is to be.
            let taken = Baseline::take(instance.pid)
                .and_then(|baseline| baseline.write(&self.starter.root, &instance.name));
            report("write a baseline", taken);
            self.reply(asker, Ok(Answer::Launched(launched)));
        }
    }

    fn death(&mut self, key: u32) {
        let Some(reaped) = self.table.reap(&mut self.starter, key) else { return };
        if let Some((asker, launched)) = reaped.born {
            self.reply(asker, Ok(Answer::Launched(launched)));
        }
        if let Some((asker, error)) = reaped.failed {
            self.starter.detach(&reaped.name, reaped.network.as_ref());
            self.clean(reaped.group);
            report("remove a record", record::remove(&self.starter.root, &reaped.name));
            return self.reply(asker, Err(Refusal::Launch(error)));
        }
        // Told first, so that a replacement can begin while the rest is cleared away.
        self.broadcast(&Message::Event(Event::Exited {
            instance: reaped.name.clone(),
            exit: reaped.exit.clone(),
        }));
        let written = record::write_exit(&self.starter.root, &reaped.name, &reaped.exit);
        report("record an exit", written);
        self.clean(reaped.group);
    }

    /// Removes the group of an instance that has ended.
    fn clean(&mut self, group: Group) {
        if group.remove().is_err() {
            self.leftovers.push(group);
        }
        self.tidy_up();
    }

    /// Removes what stands for the root when the last instance has gone.
    fn tidy_up(&mut self) {
        if self.table.live.is_empty() {
            self.idle_since = Instant::now();
            if self.leftovers.is_empty() {
                report("remove control groups", self.starter.cgroups.remove_parents());
            }
        }
    }

    fn reply(&mut self, (number, id): (u32, u64), result: Result<Answer, Refusal>) {
        let Some(client) = self.clients.all.get_mut(&number) else { return };
        match client.send(&Message::Reply { id, result }) {
            Ok(()) => self.watch_output(number),
            Err(_) => self.drop_client(number),
        }
    }

    fn broadcast(&mut self, message: &Message) {
        let subscribed = self.clients.all.iter_mut().filter(|(_, client)| client.subscribed);
        let gone: Vec<u32> = subscribed
            .filter_map(|(number, client)| client.send(message).err().map(|_| *number))
            .collect();
        for number in gone {
            self.drop_client(number);
        }
        let numbers: Vec<u32> = self.clients.all.keys().copied().collect();
        for number in numbers {
            self.watch_output(number);
        }
    }

    /// Waits for room in the socket of a client that is behind.
    fn watch_output(&mut self, number: u32) {
        let Some(client) = self.clients.all.get(&number) else { return };
        let mut flags = EventFlags::IN;
        if client.is_behind() {
            flags |= EventFlags::OUT;
        }
        let data = Source::Client(number).pack();
        if epoll::modify(&self.epoll, &client.socket, data, flags).is_err() {
            self.drop_client(number);
        }
    }

    fn drop_client(&mut self, number: u32) {
        self.clients.all.remove(&number);
        self.idle_since = Instant::now();
    }

    fn is_idle(&self) -> bool {
        self.clients.all.is_empty() && self.table.live.is_empty()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let kills = self.table.live.values().filter_map(|instance| instance.kill_at);
        let retry = (!self.leftovers.is_empty()).then(|| Instant::now() + RETRY);
        let idle = self.is_idle().then(|| self.idle_since + self.idle_limit);
        kills.chain(retry).chain(idle).min()
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        for instance in self.table.live.values_mut() {
            if instance.kill_at.is_some_and(|at| at <= now) {
                instance.expire();
            }
        }
        if !self.leftovers.is_empty() {
            self.leftovers.retain(|group| {
                group.kill();
                group.remove().is_err()
            });
            self.tidy_up();
        }
        if self.is_idle() && self.leftovers.is_empty() && now >= self.idle_since + self.idle_limit {
            self.ending = true;
        }
    }

    /// The socket's path, to be removed at the end.
    pub(super) fn socket_path(&self) -> PathBuf {
        self.starter.root.join(super::SOCKET)
    }
}
