//! Health checks: whether an instance can serve is asked from inside its network.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_engine::target::{Measured, Probes};
use kiln_model::name::{InstanceId, StackName};
use kiln_model::observed::{ObservedInstance, Verdict};
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::route::RouteTable;
use kiln_model::spec::server::{Health, Probe};
use kiln_netns::Namespace;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::events::Changes;
use super::now;

/// From one probe to the next until the instance is ready.
const UNTIL_READY: Duration = Duration::from_millis(20);

/// The longest status line that is read.
const STATUS_LINE: usize = 4096;

/// Probes every instance, each in a task of its own.
pub(super) struct Prober {
    root: PathBuf,
    changes: Arc<Changes>,
    runtime: Handle,
    /// What was made before was made by an earlier daemon.
    started_at: Timestamp,
    subjects: Mutex<BTreeMap<InstanceId, Watched>>,
}

/// An instance that is being probed.
struct Watched {
    stack: StackName,
    state: Arc<Mutex<State>>,
    subject: Arc<Subject>,
    task: AbortHandle,
}

/// What a task and the prober share.
struct State {
    health: Health,
    verdict: Verdict,
}

/// What a task needs to know of its instance.
struct Subject {
    namespace: PathBuf,
    address: Ipv4Addr,
    created_at: Timestamp,
    /// Since when it is known, if it was found: it may have been proved long ago.
    found: Option<Instant>,
}

impl Prober {
    pub(super) fn new(root: &Path, changes: Arc<Changes>) -> Self {
        Self {
            root: root.to_owned(),
            changes,
            runtime: Handle::current(),
            started_at: now(),
            subjects: Mutex::new(BTreeMap::new()),
        }
    }

    /// Puts into `measured` what the probes say, and probes what is new.
    pub(super) fn judge(&self, stack: &StackName, measured: &mut Measured, probes: &Probes) {
        let rotation: BTreeSet<InstanceId> =
            measured.table.iter().flat_map(RouteTable::in_rotation).cloned().collect();
        let mut subjects = self.lock();
        subjects.retain(|id, watched| {
            let there = watched.stack != *stack
                || measured.instances.iter().any(|i| i.id == *id && i.is_running());
            if !there {
                watched.task.abort();
            }
            there
        });
        for instance in measured.instances.iter_mut().filter(|i| i.is_running()) {
            let Some(health) = probes.get(&instance.digest) else { continue };
            let watched = subjects.entry(instance.id.clone()).or_insert_with(|| {
                let proved = rotation.contains(&instance.id);
                self.watch(stack, instance, health.clone(), proved)
            });
            let mut state = watched.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.health != *health {
                state.health = health.clone();
            }
            instance.health = state.verdict.clone();
        }
    }

    fn watch(
        &self,
        stack: &StackName,
        instance: &ObservedInstance,
        health: Health,
        proved: bool,
    ) -> Watched {
        // What is in rotation was proved by an earlier daemon.
        let verdict =
            if proved { Verdict::Ready { since: now() } } else { Verdict::Starting { last: None } };
        let state = Arc::new(Mutex::new(State { health, verdict }));
        let subject = Arc::new(Subject {
            namespace: self.root.join("run/net").join(instance.network.as_str()),
            address: instance.address,
            created_at: instance.created_at,
            found: (instance.created_at < self.started_at).then(Instant::now),
        });
        let (alarm, shared) = (self.changes.of(stack), state.clone());
        let asked = subject.clone();
        let task = self.runtime.spawn(async move {
            let mut failures = 0;
            loop {
                let (turned, pause) = turn(&asked, &shared, &mut failures).await;
                if turned {
                    alarm.notify_one();
                }
                tokio::time::sleep(pause).await;
            }
        });
        Watched { stack: stack.clone(), state, subject, task: task.abort_handle() }
    }

    /// Asks an instance that is being probed something else.
    pub(super) async fn ask(&self, instance: &InstanceId, probe: &Probe) -> Result<(), String> {
        let subject = self.lock().get(instance).map(|watched| watched.subject.clone());
        // One that has gone meanwhile says nothing about the change.
        let Some(subject) = subject else { return Ok(()) };
        ask(&subject, probe).await.map_err(|reason| format!("{instance}: {reason}"))
    }

    /// Stops probing an instance.
    pub(super) fn forget(&self, instance: &InstanceId) {
        if let Some(watched) = self.lock().remove(instance) {
            watched.task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Watched>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.lock().values().for_each(|watched| watched.task.abort());
    }
}

/// One probe; whether the verdict has turned, and the pause until the next.
async fn turn(subject: &Subject, shared: &Mutex<State>, failures: &mut u32) -> (bool, Duration) {
    let health = shared.lock().unwrap_or_else(PoisonError::into_inner).health.clone();
    let probed = tokio::time::timeout(health.timeout.into(), ask(subject, &health.probe)).await;
    let result = probed.unwrap_or_else(|_| Err(format!("no answer within {}", health.timeout)));
    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
    match (result, &state.verdict) {
        (Ok(()), Verdict::Ready { .. }) => *failures = 0,
        (Ok(()), _) => {
            *failures = 0;
            state.verdict = Verdict::Ready { since: now() };
            return (true, health.every.into());
        }
        (Err(reason), Verdict::Ready { .. }) => {
            *failures += 1;
            if *failures >= health.failures.max(1) {
                state.verdict = Verdict::Unready { since: now(), reason };
                return (true, health.every.into());
            }
        }
        (Err(reason), Verdict::Starting { .. }) => {
            // What was found gets the patience of what was ready before its failures count.
            let patience = Duration::from(health.every) * health.failures.max(1);
            if subject.found.is_none_or(|found| found.elapsed() >= patience) {
                state.verdict = Verdict::Starting { last: Some(reason) };
            }
            return (false, UNTIL_READY);
        }
        (Err(_), Verdict::Unready { .. }) => {}
    }
    (false, health.every.into())
}

/// Asks an instance what its health check says; the reason where that is not well.
async fn ask(subject: &Subject, probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Running { after } => running(subject, *after),
        Probe::Tcp { port } => {
            let fail = |e: io::Error| format!("TCP port {port}: {e}");
            connect(subject, *port).await.map(drop).map_err(fail)
        }
        Probe::Http { port, path, status } => {
            let fail = |e: io::Error| format!("GET {path} on port {port}: {e}");
            let found = get(subject, *port, path).await.map_err(fail)?;
            let well = match status {
                Some(wanted) => found == *wanted,
                None => (200..400).contains(&found),
            };
            if well { Ok(()) } else { Err(format!("GET {path} on port {port}: status {found}")) }
        }
    }
}

fn running(subject: &Subject, after: Millis) -> Result<(), String> {
    let age = now().since(subject.created_at);
    if age >= after { Ok(()) } else { Err(format!("has run for {age} of {after}")) }
}

async fn connect(subject: &Subject, port: u16) -> io::Result<TcpStream> {
    let namespace = Namespace::open(&subject.namespace).map_err(io::Error::other)?;
    let socket = namespace
        .tcp_connecting(SocketAddrV4::new(subject.address, port))
        .map_err(io::Error::other)?;
    let stream = TcpStream::from_std(socket)?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// The status of the answer to a GET.
async fn get(subject: &Subject, port: u16, path: &str) -> io::Result<u16> {
    let mut stream = connect(subject, port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}:{port}\r\nUser-Agent: kiln-health\r\nConnection: close\r\n\r\n",
        subject.address
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(256);
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    status(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

/// The status in a status line (RFC 9112, section 4).
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let code = rest.get(2..5)?;
    (rest.get(1) == Some(&b' ')).then_some(())?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn status_lines() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503 Service Unavailable\r\nx"), Some(503));
        for bad in [&b""[..], b"HTTP/2 200", b"HTTP/1.1", b"HTTP/1.1 2x0 OK\n", b"SSH-2.0\r\n"] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }
}
