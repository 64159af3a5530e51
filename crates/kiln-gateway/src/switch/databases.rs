//! The switch and the gates of databases.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Switch;
use crate::control::DatabaseStatus;
use crate::handover::HeldGate;
use crate::postgres::{Aim, Gate, Login};
use crate::table::Snapshot;

/// Tells all gates where questions go by the table that has just come into force. What is not
/// named any more is closed.
pub(super) fn aim(before: &Snapshot, after: &Snapshot) {
    let mut named = BTreeSet::new();
    for (table, database) in after.databases() {
        named.insert(Arc::as_ptr(&database.gate));
        database.gate.aim(database.aim.clone(), table.epoch);
    }
    for (table, database) in before.databases() {
        if !named.contains(&Arc::as_ptr(&database.gate)) {
            database.gate.close(table.epoch);
        }
    }
}

/// Waits until no session has a connection to an instance that is not to answer any more.
pub(super) fn clear(before: &Snapshot, after: &Snapshot) {
    let gates = before.databases().chain(after.databases());
    for (_, database) in gates {
        if !database.gate.clear() {
            // Their sockets are shut down: nothing passes through them any more.
            let component = database.gate.component();
            eprintln!("kiln gateway: sessions of {component} are late to leave their instance");
        }
    }
}

impl Switch {
    /// How all gates are.
    pub(crate) fn databases(&self) -> Vec<DatabaseStatus> {
        self.registry.databases().map(|gate| gate.status()).collect()
    }

    /// What the next process has to know of gates.
    pub(super) fn held_gates(&self) -> Vec<HeldGate> {
        let snapshot = self.snapshot();
        let held = snapshot.databases().map(|(table, database)| HeldGate {
            stack: table.stack.clone(),
            component: database.gate.component().clone(),
            login: database.aim.login().hold(),
        });
        held.collect()
    }

    /// Makes the gates of another process anew. They are kept by whoever has the result.
    pub(super) fn adopt_gates(&mut self, held: &[HeldGate]) -> Vec<Arc<Gate>> {
        let gates = held.iter().map(|held| {
            let gate = self.registry.database(&held.stack, &held.component);
            gate.aim(Aim::new(None, false, Arc::new(Login::adopt(&held.login))), 0);
            gate
        });
        gates.collect()
    }

    /// Tells gates what processes before this one say of them.
    pub(super) fn gather_gates(&self) {
        let told = self.predecessors.gates();
        for gate in self.registry.databases() {
            gate.elsewhere(told.iter().filter(|status| gate.is_of(status)).cloned().collect());
        }
    }
}
