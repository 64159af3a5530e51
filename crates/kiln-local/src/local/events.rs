//! What tells the engine that something has changed: the launcher, the gateway, health checks,
//! writes to images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kiln_model::name::StackName;
use tokio::sync::Notify;

use super::seal::Watch;
use super::{Machine, guard};
use crate::instance::client::Client;
use crate::instance::record;
use crate::launcher::ensure_running;

/// The pause before a process that is not there is tried again.
const ABSENT: Duration = Duration::from_millis(250);

/// How long one wait for an event lasts: so often a listener sees whether it is still needed.
const TURN: Duration = Duration::from_secs(2);

/// One alarm per stack. An alarm that nobody waits for is kept until somebody does.
#[derive(Default)]
pub(super) struct Changes {
    stacks: Mutex<BTreeMap<StackName, Arc<Notify>>>,
}

impl Changes {
    pub(super) fn of(&self, stack: &StackName) -> Arc<Notify> {
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        stacks.entry(stack.clone()).or_default().clone()
    }

    /// Raises the alarm of one stack.
    pub(super) fn wake(&self, stack: &StackName) {
        self.of(stack).notify_one();
    }

    pub(super) fn all(&self) {
        let stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        stacks.values().for_each(|alarm| alarm.notify_one());
    }
}

/// Hears events for as long as there is somebody to hear.
type Listener = fn(&Weak<Machine>);

/// Starts the listeners; they end when the machine is dropped.
pub(super) fn listen(machine: &Arc<Machine>) {
    let listeners = [
        ("launcher-events", exits as Listener),
        ("gateway-events", drains),
        ("image-writes", writes),
        ("guard", guard::run),
    ];
    for (name, listener) in listeners {
        let machine = Arc::downgrade(machine);
        let run = move || {
            while machine.strong_count() > 0 {
                listener(&machine);
                std::thread::sleep(ABSENT);
            }
        };
        // Without a listener the engine still sweeps.
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(run) {
            eprintln!("kiln: cannot start the thread {name}: {error}");
        }
    }
}

/// Hears of instances that have ended, for as long as the launcher answers.
fn exits(machine: &Weak<Machine>) {
    let Some(mut client) = machine.upgrade().and_then(|machine| launcher(&machine)) else { return };
    if client.subscribe().is_err() {
        return;
    }
    alarm(machine);
    loop {
        match client.next_event(Some(TURN)) {
            Ok(Some(_)) => alarm(machine),
            Ok(None) if machine.strong_count() > 0 => {}
            _ => break,
        }
    }
    // The launcher is gone, and with it the parent of the instances.
    alarm(machine);
}

/// The launcher, started again where it is gone and has left instances behind: it takes them
/// over, so that their ends are heard of.
fn launcher(machine: &Machine) -> Option<Client> {
    if record::list(&machine.root).is_ok_and(|instances| !instances.is_empty()) {
        return ensure_running(&machine.root, &machine.exe).ok();
    }
    Client::connect(&machine.root).ok()
}

/// Hears of instances that have finished draining, for as long as the gateway answers.
fn drains(machine: &Weak<Machine>) {
    let Some(gateway) = machine.upgrade().map(|m| m.gateway.clone()) else { return };
    let Ok(mut watch) = gateway.watch() else { return };
    alarm(machine);
    loop {
        match watch.next(TURN) {
            Ok(Some(_)) => alarm(machine),
            Ok(None) if machine.strong_count() > 0 => {}
            _ => break,
        }
    }
    alarm(machine);
}

/// Hears of writes to the files of images.
fn writes(machine: &Weak<Machine>) {
    if let Some(watch) = machine.upgrade().map(|m| Arc::downgrade(m.seals.watch())) {
        Watch::run(&watch);
    }
}

fn alarm(machine: &Weak<Machine>) {
    if let Some(machine) = machine.upgrade() {
        machine.changes.all();
    }
}
