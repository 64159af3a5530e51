//! What tells the engine that something has changed: the launcher, the gateway, health checks,
//! writes to images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kiln_gateway::control::Event;
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
    /// The epoch of the table that this process has set last, by stack.
    routed: Mutex<BTreeMap<StackName, u64>>,
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

    /// This process is about to set a table.
    pub(super) fn routes(&self, stack: &StackName, epoch: u64) {
        let mut routed = self.routed.lock().unwrap_or_else(PoisonError::into_inner);
        routed.insert(stack.clone(), epoch);
    }

    /// A table was set. Whoever keeps the stack hears of it unless this process did it.
    fn routed(&self, stack: &StackName, epoch: u64) {
        let routed = self.routed.lock().unwrap_or_else(PoisonError::into_inner);
        if routed.get(stack) != Some(&epoch) {
            self.wake(stack);
        }
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

/// Hears of instances that have finished draining and of tables that others set, for as long as the gateway answers.
fn drains(machine: &Weak<Machine>) {
    let Some(gateway) = machine.upgrade().map(|m| m.gateway.clone()) else { return };
    let Ok(mut watch) = gateway.watch() else { return };
    alarm(machine);
    loop {
        match watch.next(TURN) {
            Ok(Some(Event::Routed { stack, epoch })) => {
                if let Some(machine) = machine.upgrade() {
                    machine.changes.routed(&stack, epoch);
                }
            }
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
