//! `kiln serve`: one daemon per root, with a keeper for each stack.
//!
//! It can be ended at any moment: what it decided is in the store, instances and the gateway go
//! on without it, and the next daemon finds them again by measuring.

mod followers;
mod handler;
mod local;
mod log;
mod metrics;
mod peer;
mod process;
mod status;
mod store;
mod verity;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kiln_engine::actor::Peer;
use kiln_engine::engine::{Engine, Handle, Keeper, Refusal};
use kiln_engine::progress::ProgressEvent;
use kiln_engine::{Clock, Store, Target};
use kiln_model::name::StackName;
use tokio::net::{UnixListener, UnixStream};

use crate::api::{Fault, FaultKind};
use crate::root::Root;

use followers::Followers;

pub use local::serve_local;
pub use log::DaemonLog;
pub use process::{ServeError, own_program, serve};

/// How long a client may take to send the head of a request.
const HEAD_BOUND: Duration = Duration::from_secs(10);

/// The keepers of a root, and what answers their clients.
pub struct Daemon<T, C, S> {
    engine: Arc<Engine<T, C, S>>,
    keepers: Mutex<BTreeMap<StackName, Handle>>,
    log: DaemonLog,
    begun: Instant,
    /// What follows branches, where this daemon does.
    followers: OnceLock<Arc<Followers>>,
}

impl<T: Target, C: Clock, S: Store> Daemon<T, C, S> {
    /// A daemon with a keeper for each stack that the store knows. Must be called within a
    /// runtime: keepers begin at once.
    pub fn start(engine: Arc<Engine<T, C, S>>, log: DaemonLog) -> Result<Arc<Self>, Refusal> {
        let daemon = Arc::new(Self {
            engine,
            keepers: Mutex::default(),
            log,
            begun: Instant::now(),
            followers: OnceLock::new(),
        });
        daemon.keep_all();
        tokio::spawn(store::watch(Arc::downgrade(&daemon)));
        Ok(daemon)
    }

    /// Begins to follow the branches that are registered in `root`: each in a process of `program`,
    /// which must be able to reach this daemon.
    pub fn follow(&self, root: &Root, program: PathBuf) {
        self.followers.get_or_init(|| Followers::begin(root, program, self.log.clone()));
    }

    /// Answers clients until the future is dropped.
    pub async fn answer(self: &Arc<Self>, listener: UnixListener) -> io::Result<()> {
        loop {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                // Out of descriptors, perhaps: others end and free some.
                Err(error) => {
                    self.log.line(&format!("cannot accept a client: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match peer::of(&stream) {
                Ok(peer) if is_trusted(&peer) => {
                    tokio::spawn(self.clone().converse(stream, peer));
                }
                Ok(Peer { uid, pid, program, .. }) => {
                    self.log.line(&format!("refuses uid {uid} (pid {pid}, {program})"));
                }
                Err(error) => self.log.line(&format!("refuses a client unknown: {error}")),
            }
        }
    }

    async fn converse(self: Arc<Self>, stream: UnixStream, peer: Peer) {
        let service = service_fn(|request| handler::answer(self.clone(), peer.clone(), request));
        let conversation = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_BOUND)
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away in the middle is no error of the daemon's.
        let _ = conversation.await;
    }

    fn stacks(&self) -> Vec<StackName> {
        self.keepers().keys().cloned().collect()
    }

    fn known(&self, stack: &StackName) -> Result<Handle, Fault> {
        let known = self.keepers().get(stack).cloned();
        if known.is_none() {
            // That it is not known may be for that reason alone.
            self.engine.store.sound().map_err(Refusal::from)?;
        }
        known.ok_or_else(|| Fault {
            kind: FaultKind::NotFound,
            message: format!("stack {stack} has never been applied here"),
            causes: Vec::new(),
            help: Some("`kiln apply` in its directory brings it up".to_owned()),
        })
    }

    fn known_or_new(&self, stack: &StackName) -> Result<Handle, Refusal> {
        let mut keepers = self.keepers();
        if let Some(handle) = keepers.get(stack) {
            return Ok(handle.clone());
        }
        self.engine.store.check()?;
        let (keeper, handle) = Keeper::open(self.engine.clone(), stack.clone())?;
        tokio::spawn(keeper.run());
        tokio::spawn(write_down(self.log.clone(), handle.watch()));
        keepers.insert(stack.clone(), handle.clone());
        Ok(handle)
    }

    fn keepers(&self) -> MutexGuard<'_, BTreeMap<StackName, Handle>> {
        // The map is whole between any two statements.
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only root, and whoever the daemon runs as, is answered. The socket's mode says the same.
fn is_trusted(peer: &Peer) -> bool {
    peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw()
}

/// Writes what happens to a stack into the daemon's log.
async fn write_down(
    log: DaemonLog,
    mut heard: tokio::sync::broadcast::Receiver<kiln_engine::progress::Progress>,
) {
    use tokio::sync::broadcast::error::RecvError;

    loop {
        let progress = match heard.recv().await {
            Ok(progress) => progress,
            Err(RecvError::Lagged(missed)) => {
                log.line(&format!("{missed} events were not written down"));
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let stack = &progress.stack;
        match &progress.event {
            // They repeat with every look.
            ProgressEvent::Waiting { .. } | ProgressEvent::Converged { .. } => {}
            event => {
                let event = serde_json::to_string(event).unwrap_or_default();
                log.line(&format!("{stack} {event}"));
            }
        }
    }
}

/// An error and what it comes from, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Binds the socket at `path`, in place of one that a daemon before left behind.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;

    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
