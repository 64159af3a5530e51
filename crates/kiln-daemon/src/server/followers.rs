//! The processes that follow branches: one for each that is registered, started again when it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_engine::actor::Followed;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use crate::api::follows::Following;
use crate::api::{Fault, FaultKind};
use crate::follow;
use crate::follow::registry::{Follow, Registry, RegistryError};
use crate::root::Root;

use super::handler::fault;
use super::{DaemonLog, chain};

/// How long a process may take to end once its input has.
const END_BOUND: Duration = Duration::from_secs(25);
/// The pause before a process is started again; it doubles up to 64 times this.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a process must have run for the next pause to be the shortest again.
const LONG_RUN: Duration = Duration::from_secs(60);

/// What is told to the process of a follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Look now.
    Look,
    /// Try again what was given up.
    Retry,
}

/// The followers of a root.
pub(super) struct Followers {
    root: Root,
    program: PathBuf,
    registry: Registry,
    log: DaemonLog,
    running: Mutex<BTreeMap<String, Running>>,
    processes: Processes,
}

/// Which process is of which follow.
type Processes = Arc<Mutex<BTreeMap<i32, String>>>;

/// A process, or the pause before the next.
struct Running {
    words: mpsc::Sender<Word>,
    /// Told when all is over.
    stop: oneshot::Sender<oneshot::Sender<()>>,
}

impl Followers {
    /// The followers of `root`, each of which is begun. Called within a runtime.
    pub(super) fn begin(root: &Root, program: PathBuf, log: DaemonLog) -> Arc<Self> {
        let (root, registry, running) = (root.clone(), Registry::of(root), Mutex::default());
        let processes = Processes::default();
        let followers = Arc::new(Self { root, program, registry, log, running, processes });
        match followers.registry.ids() {
            Ok(ids) => ids.iter().for_each(|id| followers.start(id)),
            Err(error) => followers.log.line(&format!("nothing is followed: {}", chain(&error))),
        }
        followers
    }

    /// All that are registered.
    pub(super) fn list(&self) -> Result<Vec<Following>, Fault> {
        let ids = self.registry.ids().map_err(internal)?;
        ids.iter().filter_map(|id| self.following(id).transpose()).collect()
    }

    /// One of them.
    fn following(&self, id: &str) -> Result<Option<Following>, Fault> {
        let Some(follow) = self.registry.follow(id).map_err(internal)? else { return Ok(None) };
        let record = self.registry.record(id).map_err(internal)?;
        Ok(Some(Following::of(id, &follow, record)))
    }

    /// Registers a branch, durably, and begins to follow it.
    pub(super) async fn follow(&self, follow: &Follow) -> Result<Following, Fault> {
        // What was said of the same branch before holds no longer.
        self.stop(&follow.id()).await;
        let id = self.registry.register(follow).map_err(internal)?;
        self.log.line(&format!("follows {} of {} ({id})", follow.branch, follow.url));
        self.start(&id);
        self.following(&id)?.ok_or_else(|| unknown(&id))
    }

    /// Ends the following of a branch; what runs is kept.
    pub(super) async fn unfollow(&self, id: &str) -> Result<Following, Fault> {
        let following = self.following(id)?.ok_or_else(|| unknown(id))?;
        self.stop(id).await;
        self.registry.remove(id).map_err(internal)?;
        if let Err(error) = follow::forget(&self.root, id) {
            self.log.line(&format!("what {id} has left cannot be removed: {error}"));
        }
        self.log.line(&format!("{} of {} is followed no longer", following.branch, following.url));
        Ok(following)
    }

    /// Tells the process of a follow something; what is known of it.
    pub(super) async fn tell(&self, id: &str, word: Word) -> Result<Following, Fault> {
        let following = self.following(id)?.ok_or_else(|| unknown(id))?;
        let words = self.lock().get(id).map(|running| running.words.clone());
        if let Some(words) = words {
            // One that is being started looks anyway.
            let _ = words.send(word).await;
        }
        Ok(following)
    }

    /// What a process follows, where it is one that was started here.
    pub(super) fn of_process(&self, pid: i32) -> Option<Followed> {
        let id =
            self.processes.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).cloned()?;
        let follow = self.registry.follow(&id).ok().flatten()?;
        let Follow { url, branch, .. } = follow;
        Some(Followed { url, branch, commit: None, cause: None })
    }

    /// What follows a stack has it looked at now: its pin is gone.
    pub(super) async fn resumed(&self, stack: &str) {
        let of_it = |f: &Following| f.stack.as_deref() == Some(stack);
        for following in self.list().unwrap_or_default().into_iter().filter(of_it) {
            // It looks by itself before long.
            let _ = self.tell(&following.id, Word::Look).await;
        }
    }

    fn start(&self, id: &str) {
        let (words, heard) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel();
        let (program, root) = (self.program.clone(), self.root.path().to_owned());
        let supervisor = Supervisor {
            id: id.to_owned(),
            program,
            root,
            log: self.log.clone(),
            heard,
            stopped,
            processes: self.processes.clone(),
        };
        tokio::spawn(supervisor.run());
        self.lock().insert(id.to_owned(), Running { words, stop });
    }

    /// Ends a process and waits until it is gone.
    async fn stop(&self, id: &str) {
        let running = self.lock().remove(id);
        if let Some(running) = running {
            let (over, gone) = oneshot::channel();
            // A supervisor that is gone has no process.
            let _ = running.stop.send(over);
            let _ = gone.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        // The map is whole between any two statements.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn internal(error: RegistryError) -> Fault {
    fault(FaultKind::Internal, &error)
}

fn unknown(id: &str) -> Fault {
    Fault {
        kind: FaultKind::NotFound,
        message: format!("nothing is followed as {id}"),
        causes: Vec::new(),
        help: Some("`kiln follow` lists what is followed".to_owned()),
    }
}

/// Keeps the process of one follow running.
struct Supervisor {
    id: String,
    program: PathBuf,
    root: PathBuf,
    log: DaemonLog,
    heard: mpsc::Receiver<Word>,
    stopped: oneshot::Receiver<oneshot::Sender<()>>,
    processes: Processes,
}

/// Why a process is waited for no longer.
enum Over {
    Ended,
    Stopped(Option<oneshot::Sender<()>>),
}

impl Supervisor {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let begun = tokio::time::Instant::now();
            let over = match self.spawn() {
                Ok(child) => {
                    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
                    self.processes().insert(pid, self.id.clone());
                    let over = self.attend(child).await;
                    self.processes().remove(&pid);
                    over
                }
                Err(error) => {
                    self.log.line(&format!("{} cannot be started: {error}", self.id));
                    Over::Ended
                }
            };
            let Over::Ended = over else { return say_over(over) };
            failures = if begun.elapsed() > LONG_RUN { 0 } else { failures + 1 };
            let pause = PAUSE * (1 << u32::min(failures, 6));
            tokio::select! {
                over = &mut self.stopped => return say_over(Over::Stopped(over.ok())),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<i32, String>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .args(["follower", &self.id])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Signals from a terminal are for the daemon, which ends it in its own way.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Passes words on and writes down what the process says, until it ends or is to end.
    async fn attend(&mut self, mut child: Child) -> Over {
        let mut input = child.stdin.take();
        if let Some(out) = child.stdout.take() {
            tokio::spawn(write_down(self.log.clone(), self.id.clone(), BufReader::new(out)));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(write_down(self.log.clone(), self.id.clone(), BufReader::new(err)));
        }
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    self.log.line(&format!("follower {} ended: {status}", self.id));
                    return Over::Ended;
                }
                over = &mut self.stopped => {
                    drop(input.take());
                    if tokio::time::timeout(END_BOUND, child.wait()).await.is_err() {
                        // It is no use waiting longer.
                        let _ = child.kill().await;
                    }
                    return Over::Stopped(over.ok());
                }
                Some(word) = self.heard.recv() => {
                    let line: &[u8] = match word {
                        Word::Look => b"look\n",
                        Word::Retry => b"retry\n",
                    };
                    if let Some(input) = &mut input {
                        // One that has ended is waited for next.
                        let _ = input.write_all(line).await;
                    }
                }
            }
        }
    }
}

fn say_over(over: Over) {
    if let Over::Stopped(Some(told)) = over {
        // Who asked may have gone away.
        let _ = told.send(());
    }
}

async fn write_down(log: DaemonLog, id: String, from: impl tokio::io::AsyncBufRead + Unpin) {
    let mut lines = from.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.line(&format!("follower {id}: {line}"));
    }
}
