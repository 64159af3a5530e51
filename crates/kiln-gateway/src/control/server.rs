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

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::control::{
    Envelope, Event, MESSAGE_LIMIT, PROTOCOL, Refusal, Reply, Request, Status, socket_path,
};
use crate::events::Events;
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
    pub(crate) events: Events,
    pub(crate) runtime: Handle,
    pub(crate) started: Instant,
    pub(crate) clients: AtomicUsize,
}

impl Control {
    pub(crate) fn switch(&self) -> MutexGuard<'_, Switch> {
        // The switch changes nothing before everything that could panic is over.
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds the socket of `root` and serves it from a thread. The caller holds the root's lock,
/// so a socket that is there was left by a gateway that is gone.
pub(crate) fn start(root: &Path, control: Arc<Control>) -> io::Result<()> {
    let path = socket_path(root);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => serve(stream, &control),
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
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new((&stream).take(MESSAGE_LIMIT)).read_until(b'\n', &mut line)?;
    let reply = match parse(&line) {
        Ok(Request::Watch) => {
            let events = control.events.subscribe();
            send(&stream, &Reply::Watching)?;
            stream.set_nonblocking(true)?;
            control.runtime.spawn(watch(stream, events));
            return Ok(());
        }
        Ok(Request::SetTable { table }) => match control.switch().set_table(table) {
            Ok(applied) => Reply::Applied(applied),
            Err(refusal) => Reply::Refused { refusal },
        },
        Ok(Request::Status) => status(control),
        Ok(Request::Sever { instance }) => {
            let load = control.switch().sever(&instance);
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

#[derive(Deserialize)]
struct ProtocolOnly {
    protocol: u32,
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed { error: error.to_string() };
    let ProtocolOnly { protocol } = serde_json::from_slice(line).map_err(malformed)?;
    if protocol != PROTOCOL {
        return Err(Refusal::Version { ours: PROTOCOL, theirs: protocol });
    }
    let envelope: Envelope<Request> = serde_json::from_slice(line).map_err(malformed)?;
    Ok(envelope.message)
}

fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Envelope { protocol: PROTOCOL, message })?;
    line.push(b'\n');
    Ok(line)
}

fn send(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    stream.write_all(&encode(reply)?)
}

fn status(control: &Control) -> Reply {
    let uptime_ms = u64::try_from(control.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let switch = control.switch();
    if switch.is_ending() {
        return Reply::Refused { refusal: Refusal::Ending };
    }
    let snapshot = switch.snapshot();
    Reply::Status(Box::new(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms,
        client_connections: switch.client_connections(),
        tables: snapshot.stacks().map(|view| view.table.clone()).collect(),
        endpoints: switch.endpoints(),
        instances: switch.instances(),
    }))
}

/// Passes events on until the client closes its side or does not take them.
async fn watch(stream: UnixStream, mut events: Receiver<Event>) {
    let Ok(stream) = tokio::net::UnixStream::from_std(stream) else { return };
    let (mut read, mut write) = stream.into_split();
    let mut byte = [0];
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _closed = read.read(&mut byte) => return,
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
