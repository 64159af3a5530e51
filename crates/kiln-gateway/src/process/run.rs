//! `kiln gateway`: from start to end.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::access_log::AccessLog;
use crate::connection::Shared;
use crate::control::server::{self, Control};
use crate::control::{Refusal, socket_path};
use crate::crowd::Crowd;
use crate::events::Events;
use crate::handover::{self, ASKED};
use crate::process::build;
use crate::process::presence::Presence;
use crate::switch::{DRAIN_BOUND, Purpose, Switch};
use crate::table::Snapshot;
use crate::worker::Workers;

/// How long the first table is waited for.
const FIRST_TABLE: Duration = Duration::from_secs(30);

/// How long the gateway stays after its last table became empty, for the reply to be sent and
/// for a table that follows at once.
const LINGER: Duration = Duration::from_millis(100);

/// Runs the gateway of `root` until it has nothing left to serve or is told to end
/// (SIGTERM, SIGINT). Messages go to standard error.
pub fn run(root: &Path) -> ExitCode {
    match run_to_end(root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kiln gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot use {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "another gateway of this root is running (see {}) and does not hand over: {reason}",
        pid_file.display()
    )]
    Running { pid_file: PathBuf, reason: io::Error },
    #[error("cannot take over from the running gateway: {0}")]
    TakeOver(#[from] Refusal),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

fn run_to_end(root: &Path) -> Result<(), RunError> {
    let (presence, offer) = Presence::take(root)?;
    // Read before anything else: the program's file may be replaced at any time.
    let _ = build();
    let descriptors = raise_descriptor_limit();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let control = control(root, descriptors, &runtime).map_err(RunError::Runtime)?;
    let signals = runtime
        .block_on(async {
            Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
        })
        .map_err(RunError::Runtime)?;
    if let Some(offer) = offer {
        control.switch().inherit(offer)?;
        look_back(&control).map_err(RunError::Runtime)?;
    }
    let socket_error = |source| RunError::File { path: socket_path(root), source };
    let listener = presence.listener().try_clone().map_err(socket_error)?;
    presence.announce()?;
    *control.presence() = Some(presence);
    server::start(listener, Arc::clone(&control)).map_err(socket_error)?;
    let shared = Arc::clone(control.switch().shared());
    runtime.block_on(async {
        let bound = supervise(&control, &shared.workers, signals).await;
        drop(control.presence().take());
        // Whoever is not done by then has had the whole bound.
        let _ = timeout(bound, all_ended(&control, &shared.workers)).await;
    });
    runtime.shutdown_background();
    Ok(())
}

/// Asks processes before this one what they have left, as long as there are any.
fn look_back(control: &Arc<Control>) -> io::Result<()> {
    let control = Arc::clone(control);
    std::thread::Builder::new().name("predecessors".to_owned()).spawn(move || {
        while control.switch().look_back() {
            std::thread::sleep(ASKED);
        }
    })?;
    Ok(())
}

/// Waits until no connection is open, here and in processes before this one.
async fn all_ended(control: &Control, workers: &Workers) {
    workers.all_closed().await;
    while control.switch().has_predecessors() {
        sleep(ASKED).await;
    }
}

fn control(root: &Path, descriptors: u64, runtime: &Runtime) -> io::Result<Arc<Control>> {
    let events = Events::new();
    let workers = Workers::start(runtime, Workers::default_count())?;
    let current = ArcSwap::from_pointee(Snapshot::default());
    let (crowd, log) = (Crowd::new(descriptors), AccessLog::new(root));
    let (proofs, cancels, predecessors) = Default::default();
    let shared = Shared { current, workers, crowd, log, proofs, cancels, predecessors };
    let shared = Arc::new(shared);
    let switch = Switch::new(root.to_owned(), shared, events.clone());
    Ok(Arc::new(Control {
        switch: switch.into(),
        presence: None.into(),
        events,
        runtime: runtime.handle().clone(),
        started: Instant::now(),
        clients: AtomicUsize::new(0),
        left: watch::Sender::new(false),
    }))
}

/// Returns when the gateway has decided to end, or another process has taken over: all
/// listeners are closed then, and what is open has the time that is returned.
async fn supervise(control: &Control, workers: &Workers, signals: (Signal, Signal)) -> Duration {
    let (mut terminate, mut interrupt) = signals;
    let mut purpose = control.switch().purpose();
    loop {
        let now = *purpose.borrow_and_update();
        if now == Purpose::HandedOver {
            return handover::BOUND;
        }
        let nothing_to_do = async {
            match now {
                Purpose::Awaited => sleep(FIRST_TABLE).await,
                Purpose::Over => {
                    sleep(LINGER).await;
                    let _ = timeout(DRAIN_BOUND, workers.all_closed()).await;
                }
                Purpose::Serving => std::future::pending().await,
                Purpose::Ending | Purpose::HandedOver => {}
            }
        };
        tokio::select! {
            () = nothing_to_do => {
                if control.switch().end_if_idle() {
                    return DRAIN_BOUND;
                }
            }
            _changed = purpose.changed() => {}
            _told = terminate.recv() => {
                control.switch().end();
                return DRAIN_BOUND;
            }
            _told = interrupt.recv() => {
                control.switch().end();
                return DRAIN_BOUND;
            }
        }
    }
}

/// Each connection takes one or two descriptors; the soft limit is often 1,024.
/// Returns how many the process may have.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("kiln gateway: cannot raise the limit of open files: {error}");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
