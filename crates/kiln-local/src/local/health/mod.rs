//! Health checks: each instance is asked from inside its network, in tasks of its own.
//!
//! What the answers amount to is decided by [`Course`]; here they are obtained.

mod ask;
mod grpc;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_engine::target::{Measured, Probes};
use kiln_model::health::{Check, Course};
use kiln_model::name::{InstanceId, StackName};
use kiln_model::observed::ObservedInstance;
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::route::RouteTable;
use kiln_model::spec::server::{Health, Probe};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::events::Changes;
use super::labels::{has_started, mark_started};
use super::now;
use crate::logs;

use log::LogWatch;

/// Probes every instance.
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
    health: Arc<Health>,
    subject: Arc<Subject>,
    tasks: Vec<AbortHandle>,
}

/// What the tasks of an instance share.
struct Subject {
    root: PathBuf,
    id: InstanceId,
    namespace: PathBuf,
    address: Ipv4Addr,
    created_at: Timestamp,
    alarm: Arc<Notify>,
    course: Mutex<Course>,
    /// It has started: liveness is asked from now on.
    started: Notify,
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
    /// Those that are judged elsewhere are let be.
    pub(super) fn judge(
        &self,
        stack: &StackName,
        measured: &mut Measured,
        probes: &Probes,
        elsewhere: impl Fn(&InstanceId) -> bool,
    ) {
        let rotation: BTreeSet<InstanceId> =
            measured.table.iter().flat_map(RouteTable::in_rotation).cloned().collect();
        let mut subjects = self.lock();
        subjects.retain(|id, watched| {
            watched.stack != *stack
                || measured.instances.iter().any(|i| i.id == *id && i.is_running())
        });
        let own = |i: &&mut ObservedInstance| i.is_running() && !elsewhere(&i.id);
        for instance in measured.instances.iter_mut().filter(own) {
            let Some(health) = probes.get(&instance.digest) else { continue };
            let watched = subjects.entry(instance.id.clone()).or_insert_with(|| {
                let subject = self.subject(stack, instance, rotation.contains(&instance.id));
                self.watch(stack, Arc::new(subject), health)
            });
            if *watched.health != *health {
                watched.subject.course().forget_rows();
                *watched = self.watch(stack, watched.subject.clone(), health);
            }
            instance.health = watched.subject.course().verdict().clone();
        }
    }

    fn subject(
        &self,
        stack: &StackName,
        instance: &ObservedInstance,
        in_rotation: bool,
    ) -> Subject {
        let course = if instance.created_at < self.started_at || in_rotation {
            let started = has_started(&self.root, instance.id.as_str());
            Course::found(started, in_rotation, now())
        } else {
            Course::new()
        };
        Subject {
            root: self.root.clone(),
            id: instance.id.clone(),
            namespace: self.root.join("run/net").join(instance.network.as_str()),
            address: instance.address,
            created_at: instance.created_at,
            alarm: self.changes.of(stack),
            course: Mutex::new(course),
            started: Notify::new(),
        }
    }

    /// Begins to ask an instance.
    fn watch(&self, stack: &StackName, subject: Arc<Subject>, health: &Health) -> Watched {
        let health = Arc::new(health.clone());
        let mut tasks = vec![self.runtime.spawn(serves(subject.clone(), health.clone()))];
        if health.liveness.is_some() {
            tasks.push(self.runtime.spawn(lives(subject.clone(), health.clone())));
        }
        let tasks = tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        Watched { stack: stack.clone(), health, subject, tasks }
    }

    /// Asks an instance that is being probed something else; whoever calls bounds its time.
    pub(super) async fn ask(&self, instance: &InstanceId, probe: &Probe) -> Result<(), String> {
        let subject = self.lock().get(instance).map(|watched| watched.subject.clone());
        // One that has gone meanwhile says nothing about the change.
        let Some(subject) = subject else { return Ok(()) };
        let asked = asked(&subject, probe, None).await;
        asked.map_err(|reason| format!("{instance}: {reason}"))
    }

    /// Stops probing an instance.
    pub(super) fn forget(&self, instance: &InstanceId) {
        self.lock().remove(instance);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Watched>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Subject {
    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn age(&self) -> Millis {
        now().since(self.created_at)
    }

    /// Takes an answer in; how long until the next probe of this check, if there is one.
    fn heard(&self, check: Check, answer: Result<(), String>, health: &Health) -> Option<Millis> {
        let (turned, started, pause) = {
            let mut course = self.course();
            let before = course.has_started();
            let turned = course.heard(check, answer, health, self.age(), now());
            (turned, course.has_started() && !before, course.pause(check, health))
        };
        if started {
            // Without the mark the next daemon asks for its start again.
            if let Err(error) = mark_started(&self.root, self.id.as_str()) {
                eprintln!("kiln: cannot note that {} has started: {error}", self.id);
            }
            self.started.notify_one();
        }
        if turned {
            self.alarm.notify_one();
        }
        pause
    }
}

/// Asks whether an instance has started, then whether it can serve, until it is dead.
async fn serves(subject: Arc<Subject>, health: Arc<Health>) {
    let directory = logs::directory(&subject.root, subject.id.as_str());
    let started = subject.course().has_started();
    let watch = |probe: &Probe, seen| match probe {
        Probe::Log { line } => Some(LogWatch::new(&directory, line, seen)),
        _ => None,
    };
    let mut startup = health.startup.as_ref().and_then(|startup| watch(&startup.probe, started));
    // Where there is no other check for it, to have started is to have been ready.
    let mut readiness = watch(&health.probe, started && health.startup.is_none());
    loop {
        let check = subject.course().asks(&health);
        let answer = match (&health.startup, check) {
            (Some(ask), Check::Startup) => {
                let left = ask.deadline.map(|d| Millis(d.0.saturating_sub(subject.age().0).max(1)));
                let timeout = left.map_or(ask.timeout, |left| left.min(ask.timeout));
                answer(&subject, &ask.probe, timeout, startup.as_mut()).await
            }
            _ => answer(&subject, &health.probe, health.timeout, readiness.as_mut()).await,
        };
        let well = answer.is_ok();
        let Some(pause) = subject.heard(check, answer, &health) else { return };
        // What has started is asked at once whether it can serve.
        if check == Check::Readiness || !well {
            tokio::time::sleep(pause.into()).await;
        }
    }
}

/// Asks whether an instance that has started still lives, until it does not.
async fn lives(subject: Arc<Subject>, health: Arc<Health>) {
    let Some(liveness) = &health.liveness else { return };
    while !subject.course().has_started() {
        subject.started.notified().await;
    }
    loop {
        let answer = answer(&subject, &liveness.probe, liveness.timeout, None).await;
        let Some(pause) = subject.heard(Check::Liveness, answer, &health) else { return };
        tokio::time::sleep(pause.into()).await;
    }
}

/// What an instance answers to a probe within its time; the reason where that is not well.
async fn answer(
    subject: &Subject,
    probe: &Probe,
    timeout: Millis,
    log: Option<&mut LogWatch>,
) -> Result<(), String> {
    let bound = Duration::from(timeout);
    tokio::time::timeout(bound, asked(subject, probe, log))
        .await
        .unwrap_or_else(|_| Err(format!("{}: no answer within {timeout}", ask::name(probe))))
}

async fn asked(subject: &Subject, probe: &Probe, log: Option<&mut LogWatch>) -> Result<(), String> {
    let place = ask::Place { namespace: &subject.namespace, address: subject.address };
    match probe {
        Probe::Running { after } => ran(subject.age(), *after),
        Probe::Log { .. } => log.map_or(Ok(()), LogWatch::look),
        Probe::Tcp { port } => ask::tcp(&place, *port).await,
        Probe::Http { port, path, status } => ask::http(&place, *port, path, *status).await,
        Probe::Grpc { port, service } => grpc::check(&place, *port, service).await,
    }
}

fn ran(age: Millis, after: Millis) -> Result<(), String> {
    if age >= after { Ok(()) } else { Err(format!("has run for {age} of {after}")) }
}
