//! The daemon as a process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_engine::Target;
use kiln_engine::clock::SystemClock;
use kiln_engine::engine::{Engine, Refusal};
use kiln_engine::key::RootKey;
use kiln_engine::store::sqlite::SqliteStore;
use tokio::signal::unix::{SignalKind, signal};

use crate::ledger::{Ledger, LedgerError};
use crate::root::{Locked, Root, RootError};

use super::log::keep_errors;
use super::{Daemon, DaemonLog, bind, chain};

/// How long the daemon before may take to end.
const TURN_BOUND: Duration = Duration::from_secs(10);

/// Why the daemon can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The root can't be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Another one does.
    #[error("another daemon serves {0} already")]
    Taken(String),
    /// The store can't be used.
    #[error("the store cannot be opened")]
    Ledger(#[from] LedgerError),
    /// The machine can't be.
    #[error("this machine cannot hold instances")]
    Target(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The keepers can't begin.
    #[error("the stacks cannot be kept")]
    Keepers(#[from] Refusal),
    /// The socket, a signal, the log or a thread.
    #[error("the daemon cannot {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl ServeError {
    /// The way out.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Root(error) => error.help(),
            Self::Ledger(error) => error.help(),
            Self::Taken(_) => Some("there is nothing to do: commands find it by themselves"),
            _ => None,
        }
    }
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Io { what, source }
}

/// Serves `root` until SIGTERM or SIGINT. `open` gives the target, once the store and the
/// log are open.
///
/// It leaves the caller's session and closes what it inherited, so it must be called before
/// anything else of the process is set up.
pub fn serve<T, E>(
    root: &Root,
    open: impl FnOnce(&Root, Arc<SqliteStore>, RootKey, DaemonLog) -> Result<T, E>,
) -> Result<(), ServeError>
where
    T: Target,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    detach();
    root.prepare()?;
    let log = DaemonLog::open(&root.daemon_log()).map_err(io("open its log"))?;
    keep_errors(log.clone()).map_err(io("keep what it says of errors"))?;
    write_down_panics(log.clone());
    let result = run(root, log.clone(), open);
    match &result {
        Ok(()) => log.line("ended"),
        Err(error) => log.line(&format!("cannot serve: {}", chain(error))),
    }
    result
}

fn run<T, E>(
    root: &Root,
    log: DaemonLog,
    open: impl FnOnce(&Root, Arc<SqliteStore>, RootKey, DaemonLog) -> Result<T, E>,
) -> Result<(), ServeError>
where
    T: Target,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let _only = lock(root)?;
    let (store, key) = Ledger::create(root)?.into_parts();
    let store = Arc::new(store);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("start its threads"))?;
    let served = runtime.block_on(async {
        let target = open(root, store.clone(), key, log.clone());
        let target = target.map_err(|e| ServeError::Target(e.into()))?;
        let engine = Engine::new(Arc::new(target), Arc::new(SystemClock), store);
        let daemon = Daemon::start(Arc::new(engine), log.clone())?;
        let socket = bind(&root.socket()).map_err(io("bind its socket"))?;
        daemon.follow(root, own_program().map_err(io("find its own program"))?);
        log.line(&format!("kiln {} serves {}", crate::api::VERSION, root.path().display()));
        tokio::select! {
            result = daemon.answer(socket) => result.map_err(io("answer clients")),
            result = told_to_end() => result,
        }
    });
    // Steps under way are left as they are: the next daemon measures what became of them.
    let _ = std::fs::remove_file(root.socket());
    runtime.shutdown_background();
    served
}

fn lock(root: &Root) -> Result<Locked, ServeError> {
    let begun = Instant::now();
    loop {
        if let Some(locked) = root.try_lock_daemon()? {
            return Ok(locked);
        }
        if begun.elapsed() > TURN_BOUND {
            return Err(ServeError::Taken(root.path().display().to_string()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn told_to_end() -> Result<(), ServeError> {
    let failed = io("listen for signals");
    let mut both = signal(SignalKind::terminate())
        .and_then(|term| Ok((term, signal(SignalKind::interrupt())?)))
        .map_err(failed)?;
    tokio::select! {
        _ = both.0.recv() => {}
        _ = both.1.recv() => {}
    }
    Ok(())
}

/// Leaves the session of whoever started it, and holds none of its descriptors.
fn detach() {
    // Where it leads a group already, a terminal runs it in the foreground, and it stays there.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    // SAFETY: nothing of this process owns a descriptor above 2 yet: `serve` is called first of
    // all, and what is open there was inherited.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

fn write_down_panics(log: DaemonLog) {
    std::panic::set_hook(Box::new(move |panic| log.line(&format!("defect: {panic}"))));
}

/// The path of this very program, for those that it starts.
pub fn own_program() -> io::Result<std::path::PathBuf> {
    let path = std::env::current_exe()?;
    // After an upgrade in place the kernel adds this; the new program stands at the same path.
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), |p| Path::new(p).to_owned()))
}
