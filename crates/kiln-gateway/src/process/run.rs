//! `kiln gateway`: from start to end.

use std::fs;
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
use tokio::time::{sleep, timeout};

use crate::connection::Shared;
use crate::control::server::{self, Control};
use crate::control::socket_path;
use crate::events::Events;
use crate::process::lock::Lock;
use crate::switch::{DRAIN_BOUND, Purpose, Switch};
use crate::table::Snapshot;
use crate::worker::Workers;

/// How long the first table is waited for.
const FIRST_TABLE: Duration = Duration::from_secs(30);

/// How long the gateway stays after its last table became empty, for the reply to be sent and
/// for a table that follows at once.
const LINGER: Duration = Duration::from_millis(100);

/// How long a predecessor that is about to end is waited for.
const PREDECESSOR: Duration = Duration::from_secs(2);

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
enum RunError {
    #[error("cannot use {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("another gateway of this root is running (see {})", pid_file.display())]
    Running { pid_file: PathBuf },
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

/// What the gateway has in `ROOT/run`; gone when this is dropped.
struct Presence {
    socket: PathBuf,
    pid_file: PathBuf,
    /// Released last, so that a successor's files are never removed.
    _lock: Lock,
}

impl Presence {
    fn take(root: &Path) -> Result<Self, RunError> {
        let run = root.join("run");
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::File { path, source }
        };
        fs::create_dir_all(&run).map_err(file_error(&run))?;
        let pid_file = run.join("gateway.pid");
        let path = run.join("gateway.lock");
        let lock = Lock::take(&path, PREDECESSOR).map_err(file_error(&path))?;
        let Some(lock) = lock else { return Err(RunError::Running { pid_file }) };
        let pid = format!("{}\n", std::process::id());
        fs::write(&pid_file, pid).map_err(file_error(&pid_file))?;
        Ok(Self { socket: socket_path(root), pid_file, _lock: lock })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next gateway.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.pid_file);
    }
}

fn run_to_end(root: &Path) -> Result<(), RunError> {
    let presence = Presence::take(root)?;
    raise_descriptor_limit();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let control = control(root, &runtime).map_err(RunError::Runtime)?;
    let signals = runtime
        .block_on(async {
            Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
        })
        .map_err(RunError::Runtime)?;
    server::start(root, Arc::clone(&control))
        .map_err(|source| RunError::File { path: presence.socket.clone(), source })?;
    let workers = Arc::clone(control.switch().shared());
    runtime.block_on(async {
        supervise(&control, &workers.workers, signals).await;
        drop(presence);
        // Whoever is not done by then has had the whole bound.
        let _ = timeout(DRAIN_BOUND, workers.workers.all_closed()).await;
    });
    runtime.shutdown_background();
    Ok(())
}

fn control(root: &Path, runtime: &Runtime) -> io::Result<Arc<Control>> {
    let events = Events::new();
    let workers = Workers::start(runtime, Workers::default_count())?;
    let current = ArcSwap::from_pointee(Snapshot::default());
    let shared = Arc::new(Shared { current, workers });
    let switch = Switch::new(root.to_owned(), shared, events.clone());
    Ok(Arc::new(Control {
        switch: switch.into(),
        events,
        runtime: runtime.handle().clone(),
        started: Instant::now(),
        clients: AtomicUsize::new(0),
    }))
}

/// Returns when the gateway has decided to end: all listeners are closed then.
async fn supervise(control: &Control, workers: &Workers, signals: (Signal, Signal)) {
    let (mut terminate, mut interrupt) = signals;
    let mut purpose = control.switch().purpose();
    loop {
        let now = *purpose.borrow_and_update();
        let nothing_to_do = async {
            match now {
                Purpose::Awaited => sleep(FIRST_TABLE).await,
                Purpose::Over => {
                    sleep(LINGER).await;
                    let _ = timeout(DRAIN_BOUND, workers.all_closed()).await;
                }
                Purpose::Serving => std::future::pending().await,
                Purpose::Ending => {}
            }
        };
        tokio::select! {
            () = nothing_to_do => {
                if control.switch().end_if_idle() {
                    return;
                }
            }
            _changed = purpose.changed() => {}
            _told = terminate.recv() => return control.switch().end(),
            _told = interrupt.recv() => return control.switch().end(),
        }
    }
}

/// Each connection takes one or two descriptors; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("kiln gateway: cannot raise the limit of open files: {error}");
    }
}
