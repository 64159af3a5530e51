//! Processes in an instance's namespaces that are not the instance's.

use std::collections::HashMap;
use std::fs;

use kiln_engine::guard::Source;
use kiln_model::drift::{Aspect, Drift};

use super::Guard;
use crate::guard::name_of;
use crate::instance::baseline::namespace;

/// Those in which a process can be; that of control groups says nothing of what it can reach.
const KINDS: [&str; 6] = ["mnt", "net", "pid", "ipc", "uts", "user"];

/// Whose namespaces are whose.
#[derive(Default)]
pub(super) struct Strangers {
    owners: HashMap<u64, String>,
}

impl Strangers {
    /// Takes in who there is now.
    pub(super) fn refresh(&mut self, guard: &Guard) {
        self.owners.clear();
        for watched in guard.instances_now() {
            let own = watched.subject.namespaces();
            self.owners.extend(own.map(|(_, number)| (number, watched.id.clone())));
        }
        // Where there is no user namespace, it is everybody's.
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        for number in KINDS.iter().filter_map(|kind| namespace(pid, kind)) {
            self.owners.remove(&number);
        }
    }

    /// The instance in whose namespaces a process is, and in which.
    fn place(&self, pid: i32) -> Option<(&str, Vec<&'static str>)> {
        let inside = KINDS
            .iter()
            .filter_map(|kind| Some((self.owners.get(&namespace(pid, kind)?)?.as_str(), *kind)));
        let inside: Vec<(&str, &'static str)> = inside.collect();
        let owner = inside.first()?.0;
        Some((owner, inside.iter().filter(|(it, _)| *it == owner).map(|(_, kind)| *kind).collect()))
    }

    /// Judges some processes, and keeps what is found.
    pub(super) fn look(&self, guard: &Guard, pids: &[i32], source: Source) {
        for (id, drift) in pids.iter().filter_map(|pid| self.judge(guard, *pid)) {
            if let Some(watched) = guard.instance(&id) {
                guard.note(&watched, vec![drift], source);
            }
        }
    }

    /// Whether a process is in some instance's namespaces and not in its groups; the instance, and
    /// what is wrong.
    fn judge(&self, guard: &Guard, pid: i32) -> Option<(String, Drift)> {
        let (owner, kinds) = self.place(pid)?;
        let watched = guard.instance(owner)?;
        watched.subject.membership(pid)?;
        // It may be about to go, or its namespace may be: then it is nobody's any more.
        let still = self.place(pid).is_some_and(|(now, _)| now == owner);
        if !still || !watched.subject.is_alive() {
            return None;
        }
        let found =
            format!("{} from outside, in its {} namespaces", name_of(pid), kinds.join(", "));
        let drift = Drift::new(Aspect::Process, "its own processes only", found);
        Some((owner.to_owned(), drift))
    }

    /// All processes of the machine that are not Kiln's own.
    pub(super) fn processes(own: &[i32]) -> Vec<i32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| !own.contains(pid)).collect()
    }
}
