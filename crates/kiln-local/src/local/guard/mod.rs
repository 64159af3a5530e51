//! The guard: whether instances and networks are what they were made as, all the time.
//!
//! What tells that something may have changed ([`Source`]) is heard on one thread ([`turn`]), which
//! then measures just that. Behind it goes a sweep over everything, without end, at a pace that keeps
//! the whole below a fixed share of one processor ([`pace`]): its round bounds how long something
//! can live of which no event tells.
//!
//! What has differed once is drift for good, also where somebody has set it back: it is written down
//! beside the instance, the stack's keeper is woken, and the instance is replaced.

mod connector;
mod due;
mod ears;
mod files;
mod pace;
mod report;
mod strangers;
mod sweep;
mod turn;
mod watched;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_engine::guard::{GuardReport, Source};
use kiln_model::drift::{Aspect, Drift};
use kiln_model::name::StackName;
use rustix::event::{EventfdFlags, eventfd};

use super::events::Changes;
use super::labels::NetworkLabels;
use crate::cgroup::Cgroups;
use crate::guard::{Membership, Whole};
use crate::instance::record::{self, Record};

pub(super) use turn::run;

use report::Report;
use watched::{Net, Watched};

/// See the module.
pub(super) struct Guard {
    root: PathBuf,
    cgroups: Cgroups,
    membership: Membership,
    changes: Arc<Changes>,
    /// By id; none for one that is being ended.
    instances: Mutex<BTreeMap<String, Option<Arc<Watched>>>>,
    networks: Mutex<BTreeMap<String, Option<Arc<Net>>>>,
    /// Wakes the thread: there is something new to be watched.
    bell: Option<OwnedFd>,
    report: Mutex<Report>,
}

impl Guard {
    pub(super) fn new(root: &Path, cgroups: &Cgroups, changes: Arc<Changes>) -> Self {
        Self {
            root: root.to_owned(),
            cgroups: cgroups.clone(),
            membership: Membership::new(cgroups.hierarchies(), cgroups.parent()),
            changes,
            instances: Mutex::default(),
            networks: Mutex::default(),
            // Without it, what is new is met at the next beat.
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            report: Mutex::default(),
        }
    }

    /// In what a running instance differs from what it was made as. One that was not known is
    /// measured here and now, and watched from then on.
    pub(super) fn drift(&self, record: &Record, stack: &StackName) -> Vec<Drift> {
        if let Some(known) = lock(&self.instances).get(&record.instance) {
            return known.as_ref().map(|watched| watched.drift()).unwrap_or_default();
        }
        let Some(watched) = Watched::open(self, record, stack) else { return Vec::new() };
        let watched = Arc::new(watched);
        if watched.drift().is_empty() {
            let found = watched.subject.measure(Whole::All);
            self.note(&watched, found, Source::Sweep);
        }
        lock(&self.instances)
            .entry(record.instance.clone())
            .or_insert_with(|| Some(watched.clone()));
        self.ring();
        watched.drift()
    }

    /// Measures all instances of a stack now.
    pub(super) fn measure(&self, stack: &StackName) {
        for watched in self.instances_now().iter().filter(|watched| watched.stack == *stack) {
            self.look(watched, Whole::All, Source::Sweep);
        }
    }

    /// Whether an instance was found to be kept from running.
    pub(super) fn is_stopped(&self, instance: &str) -> bool {
        let watched = self.instance(instance);
        watched.is_some_and(|it| it.drift().iter().any(|drift| drift.what == Aspect::Stopped))
    }

    /// In what an instance was found to differ, by this daemon or by one before.
    pub(super) fn found(&self, instance: &str) -> Vec<Drift> {
        let known = self.instance(instance).map(|it| it.drift()).unwrap_or_default();
        if known.is_empty() { watched::read(&self.root, instance) } else { known }
    }

    /// Lets go of an instance: it is about to be ended.
    pub(super) fn forget(&self, instance: &str) {
        lock(&self.instances).insert(instance.to_owned(), None);
    }

    /// Lets go of a network: it is about to be ended.
    pub(super) fn forget_network(&self, network: &str) {
        lock(&self.networks).insert(network.to_owned(), None);
    }

    /// Has what is new watched.
    pub(super) fn ring(&self) {
        if let Some(bell) = &self.bell {
            // One that rings already need not be rung.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }

    /// What it hears, how often it looks, what it has found and what it costs.
    pub(super) fn report(&self) -> GuardReport {
        let (instances, networks) = (self.instances_now().len(), self.networks_now().len());
        lock(&self.report).document(instances, networks)
    }

    fn instances_now(&self) -> Vec<Arc<Watched>> {
        lock(&self.instances).values().flatten().cloned().collect()
    }

    fn instance(&self, id: &str) -> Option<Arc<Watched>> {
        lock(&self.instances).get(id).cloned().flatten()
    }

    fn network(&self, id: &str) -> Option<Arc<Net>> {
        lock(&self.networks).get(id).cloned().flatten()
    }

    fn networks_now(&self) -> Vec<Arc<Net>> {
        lock(&self.networks).values().flatten().cloned().collect()
    }

    /// Measures an instance that is not known to have drifted.
    fn look(&self, watched: &Watched, whole: Whole, source: Source) {
        if watched.is_sound() {
            self.note(watched, watched.subject.measure(whole), source);
        }
    }

    /// Keeps what was found of an instance, and wakes whoever has to act.
    fn note(&self, watched: &Watched, found: Vec<Drift>, source: Source) {
        if found.is_empty() || !watched.condemn(found) {
            return;
        }
        self.changes.wake(&watched.stack);
        lock(&self.report).found(source);
        watched.write_down(&self.root);
    }

    /// Takes up networks that are new, and lets go of what is gone.
    fn reconcile(&self) {
        let here = |id: &String| record::directory(&self.root, id).exists();
        lock(&self.instances).retain(|id, _| here(id));
        let Ok(labelled) = NetworkLabels::list(&self.root) else { return };
        let mut networks = lock(&self.networks);
        networks.retain(|id, _| labelled.iter().any(|labels| labels.id.as_str() == id));
        for labels in labelled {
            if !networks.contains_key(labels.id.as_str()) {
                let id = labels.id.to_string();
                networks.insert(id, Some(Arc::new(Net::new(labels))));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The launcher's process, where there is one.
fn launcher_pid(root: &Path) -> io::Result<i32> {
    let text = std::fs::read_to_string(root.join("run/launcher.pid"))?;
    text.trim().parse().map_err(io::Error::other)
}
