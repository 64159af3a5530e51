//! The gateway's side of the control socket.
//!
//! It has threads of its own: reading a large table must not keep a worker from its
//! connections.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::route::RouteTable;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;

use crate::control::{
    Envelope, Event, Keys, MESSAGE_LIMIT, PROTOCOL, Refusal, Reply, Request, Status, Traffic,
    socket_path,
};
use crate::events::Events;
use crate::handover;
use crate::process::{Presence, build};
use crate::switch::Switch;

/// How long a client may take to send its request or to take its reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that are served at a time.
const CLIENTS: usize = 64;

/// How long the end of what was severed is waited for; it takes two turns of a worker.
const SEVER_TIME: Duration = Duration::from_millis(500);

/// What requests are answered from.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) switch: Mutex<Switch>,
    /// What the process has in the root; none once that was handed over.
    pub(crate) presence: Mutex<Option<Presence>>,
    pub(crate) events: Events,
    pub(crate) runtime: Handle,
    pub(crate) started: Instant,
    pub(crate) clients: AtomicUsize,
    /// Whether another process answers now.
    pub(crate) left: watch::Sender<bool>,
}

impl Control {
    pub(crate) fn switch(&self) -> MutexGuard<'_, Switch> {
        // The switch changes nothing before everything that could panic is over.
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn presence(&self) -> MutexGuard<'_, Option<Presence>> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process answers from now on: no further connection is taken, subscribers are
    /// let go, and the root is left to it.
    pub(crate) fn leave(&self) {
        self.left.send_replace(true);
        if let Some(presence) = self.presence().take() {
            presence.leave();
        }
    }
}

/// Binds the socket of `root`. The caller holds the root's lock, so a socket that is there was
/// left by a gateway that is gone.
pub(crate) fn bind(root: &Path) -> io::Result<UnixListener> {
    let path = socket_path(root);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the control socket from a thread, until another process does.
pub(crate) fn start(listener: UnixListener, control: Arc<Control>) -> io::Result<()> {
    // Two processes wait for the same connections for a moment, and one of them in vain.
    listener.set_nonblocking(true)?;
    let (told, wake) = UnixStream::pair()?;
    let mut left = control.left.subscribe();
    control.runtime.spawn(async move {
        // Dropping its end wakes the thread; so does the end of this process.
        let _ = left.wait_for(|left| *left).await;
        drop(wake);
    });
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        while !*control.left.borrow() {
            let wait = &mut [
                PollFd::new(&listener, PollFlags::IN),
                PollFd::new(&told, PollFlags::IN | PollFlags::HUP),
            ];
            let ready = poll(wait, None);
            if *control.left.borrow() {
                return;
            }
            match ready.map_err(io::Error::from).and_then(|_| listener.accept()) {
                Ok((stream, _)) => serve(stream, &control),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    })?;
    Ok(())
}

/// Serves one connection on a thread of its own.
fn serve(stream: UnixStream, control: &Arc<Control>) {
    if !may_connect(&stream) || control.clients.load(SeqCst) >= CLIENTS {
        return;
    }
    let served = Arc::clone(control);
    control.clients.fetch_add(1, SeqCst);
    let spawned = std::thread::Builder::new().name("control-client".to_owned()).spawn(move || {
        // A client that goes away has nobody left to tell.
        let _ = answer(stream, &served);
        served.clients.fetch_sub(1, SeqCst);
    });
    if spawned.is_err() {
        control.clients.fetch_sub(1, SeqCst);
    }
}

/// The user who runs the gateway, and root.
fn may_connect(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == ours || peer.uid.is_root())
}

fn answer(stream: UnixStream, control: &Arc<Control>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new((&stream).take(MESSAGE_LIMIT)).read_until(b'\n', &mut line)?;
    let reply = match parse(&line) {
        Ok(Request::Watch) => {
            let events = control.events.subscribe();
            send(&stream, &Reply::Watching)?;
            stream.set_nonblocking(true)?;
            control.runtime.spawn(tell(stream, events, control.left.subscribe()));
            return Ok(());
        }
        Ok(Request::HandOver { version }) => return handover::give(&stream, control, version),
        Ok(Request::SetTable { table, keys }) => set_table(control, table, &keys),
        Ok(Request::SetProofs { proofs }) => match control.switch().set_proofs(proofs) {
            Ok(()) => Reply::Proving,
            Err(refusal) => Reply::Refused { refusal },
        },
        Ok(Request::Status) => status(control),
        Ok(Request::Traffic) => traffic(control),
        Ok(Request::Sever { instance }) => {
            let mut switch = control.switch();
            if let Some(refusal) = switch.refusal() {
                return send(&stream, &Reply::Refused { refusal });
            }
            let load = switch.sever(&instance);
            drop(switch);
            let deadline = Instant::now() + SEVER_TIME;
            let left = || load.as_ref().map_or(0, |load| load.total());
            while left() > 0 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            Reply::Severed { left: left() }
        }
        Err(refusal) => Reply::Refused { refusal },
    };
    send(&stream, &reply)
}

fn set_table(control: &Control, table: RouteTable, keys: &Keys) -> Reply {
    let (stack, epoch) = (table.stack.clone(), table.epoch);
    let set = control.switch().set_table(table, keys);
    match set {
        Ok(applied) => {
            control.events.routed(&stack, epoch);
            Reply::Applied(applied)
        }
        Err(refusal) => Reply::Refused { refusal },
    }
}

#[derive(Deserialize)]
struct ProtocolOnly {
    protocol: u32,
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed { error: error.to_string() };
    let ProtocolOnly { protocol } = serde_json::from_slice(line).map_err(malformed)?;
    let envelope = serde_json::from_slice::<Envelope<Request>>(line);
    match envelope {
        // It has a version of its own, so that a newer gateway can take over.
        Ok(Envelope { message: message @ Request::HandOver { .. }, .. }) => Ok(message),
        _ if protocol != PROTOCOL => Err(Refusal::Version { ours: PROTOCOL, theirs: protocol }),
        envelope => Ok(envelope.map_err(malformed)?.message),
    }
}

fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Envelope { protocol: PROTOCOL, message })?;
    line.push(b'\n');
    Ok(line)
}

pub(crate) fn send(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    stream.write_all(&encode(reply)?)
}

fn status(control: &Control) -> Reply {
    let uptime_ms = u64::try_from(control.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let switch = control.switch();
    if let Some(refusal) = switch.refusal() {
        return Reply::Refused { refusal };
    }
    let snapshot = switch.snapshot();
    Reply::Status(Box::new(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: build().to_owned(),
        pid: std::process::id(),
        uptime_ms,
        client_connections: switch.client_connections(),
        tables: snapshot.stacks().map(|view| view.table.clone()).collect(),
        endpoints: switch.endpoints(),
        instances: switch.instances(),
        databases: switch.databases(),
    }))
}

fn traffic(control: &Control) -> Reply {
    let switch = control.switch();
    match switch.refusal() {
        Some(refusal) => Reply::Refused { refusal },
        None => Reply::Traffic(Box::new(Traffic {
            servers: switch.servers(),
            instances: switch.instances(),
        })),
    }
}

/// Passes events on until the client closes its side or does not take them.
async fn tell(stream: UnixStream, mut events: Receiver<Event>, mut left: watch::Receiver<bool>) {
    let Ok(stream) = tokio::net::UnixStream::from_std(stream) else { return };
    let (mut read, mut write) = stream.into_split();
    let mut byte = [0];
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _closed = read.read(&mut byte) => return,
            // The next process tells what comes from now on.
            _left = left.wait_for(|left| *left) => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Lagged(events)) => Event::Missed { events },
            Err(RecvError::Closed) => return,
        };
        let Ok(line) = encode(&event) else { return };
        let sent = tokio::time::timeout(PATIENCE, write.write_all(&line)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
