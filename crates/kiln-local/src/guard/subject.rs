//! An instance to be measured.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use kiln_model::drift::{Aspect, Drift};
use kiln_netns::Namespace;

use super::limits::Bound;
use super::membership::Membership;
use super::mounts;
use super::process::{Expected, Status, is_exiting, is_stopped, started};
use crate::cgroup::{Cgroups, Group};
use crate::instance::baseline::Baseline;
use crate::instance::record::Record;
use crate::network::{AttachSpec, interior};

/// What is measured of an instance at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whole {
    /// Its processes, mounts and bounds.
    Inside,
    /// Who else is in any of its control groups, too.
    Joined,
    /// Its network too.
    All,
}

/// An instance, and what it is to be.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Its main process, as the host numbers it.
    pub(crate) main: i32,
    expected: Expected,
    membership: Membership,
    group: Group,
    group_path: String,
    bounds: Vec<Bound>,
    attached: Option<AttachSpec>,
}

impl Subject {
    /// What `record` says that an instance is to be; `baseline` is how it was right after its start.
    pub(crate) fn new(
        record: &Record,
        baseline: Option<Baseline>,
        cgroups: &Cgroups,
        membership: &Membership,
    ) -> Self {
        let (first, (user, group_id)) = (record.first_host_id.unwrap_or(0), record.user);
        let group = cgroups.group(&record.instance);
        Self {
            main: record.pid,
            expected: Expected {
                ids: (first.saturating_add(user), first.saturating_add(group_id)),
                baseline,
            },
            membership: membership.clone(),
            group_path: membership.group_of(&record.instance),
            bounds: Bound::all(&group, &record.limits),
            group,
            attached: record.network.as_ref().map(|network| AttachSpec {
                instance: record.instance.clone(),
                address: network.address,
                prefix_bits: network.prefix_bits,
                gateway: network.gateway,
            }),
        }
    }

    /// The numbers of its namespaces, by kind.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, u64)> {
        let baseline = self.expected.baseline.iter();
        baseline.flat_map(|it| &it.namespaces).map(|(kind, number)| (kind.as_str(), *number))
    }

    /// Whether its main process is there, and not on its way out.
    pub(crate) fn is_alive(&self) -> bool {
        let baseline = self.expected.baseline.as_ref();
        // Its number may be another's by now.
        let is_it = baseline.is_none_or(|it| started(self.main) == Some(it.started_ticks));
        is_it && !is_exiting(self.main)
    }

    /// In what it differs from what it is to be; nothing once it has ended.
    pub(crate) fn measure(&self, whole: Whole) -> Vec<Drift> {
        let mut drift = self.standstill();
        drift.extend(self.mounts());
        drift.extend(self.bounds.iter().filter_map(|bound| bound.difference().ok().flatten()));
        let members = match whole {
            Whole::Inside => self.group.members(),
            Whole::Joined | Whole::All => self.group.processes(),
        };
        let mut pids: BTreeSet<i32> = members.into_iter().collect();
        pids.insert(self.main);
        drift.extend(pids.iter().flat_map(|pid| self.process(*pid, &pids)));
        if whole == Whole::All {
            drift.extend(self.network());
        }
        // What ends is taken apart by the kernel piece by piece.
        if drift.is_empty() || !self.is_alive() { Vec::new() } else { drift }
    }

    /// Whether its main process is kept from running.
    pub(crate) fn standstill(&self) -> Vec<Drift> {
        if !is_stopped(self.main) || !self.is_alive() {
            return Vec::new();
        }
        let found = format!("stopped (process {})", self.main);
        vec![Drift::new(Aspect::Stopped, "running", found)]
    }

    /// What is mounted in it.
    pub(crate) fn mounts(&self) -> Vec<Drift> {
        let Some(baseline) = &self.expected.baseline else { return Vec::new() };
        let found = fs::read_to_string(format!("/proc/{}/mountinfo", self.main));
        let Ok(found) = found else { return Vec::new() };
        let drift = mounts::differences(&baseline.mounts, &found);
        // Of a process that ends, no mounts are seen.
        if drift.is_empty() || !self.is_alive() { Vec::new() } else { drift }
    }

    /// Looks at one process that is in its groups or should be.
    pub(crate) fn member(&self, pid: i32) -> Vec<Drift> {
        let mut pids: BTreeSet<i32> = self.group.processes().into_iter().collect();
        pids.insert(self.main);
        if pids.contains(&pid) { self.process(pid, &pids) } else { Vec::new() }
    }

    /// Whether a process is in its groups, and nowhere else.
    pub(crate) fn membership(&self, pid: i32) -> Option<Drift> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let found = self.membership.differences(&self.group_path, pid, &text)?;
        (!is_exiting(pid)).then_some(found)
    }

    fn process(&self, pid: i32, pids: &BTreeSet<i32>) -> Vec<Drift> {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return Vec::new() };
        let status = Status::parse(&text);
        let mut drift = self.expected.of_baseline(pid, &status.who(pid));
        drift.extend(self.membership(pid));
        drift.extend(status.differences(pid, &self.expected));
        let tracer = status.tracer();
        if tracer != 0 && !pids.contains(&tracer) {
            let found = format!("traced by process {tracer} ({})", status.who(pid));
            drift.push(Drift::new(Aspect::Ptrace, "traced by nobody", found));
        }
        let parent = status.parent();
        if pid != self.main && !pids.contains(&parent) && self.is_foreign(pid, parent) {
            let found = format!("started by process {parent} ({})", status.who(pid));
            drift.push(Drift::new(Aspect::Process, "started by its own program", found));
        }
        if drift.is_empty() || is_exiting(pid) { Vec::new() } else { drift }
    }

    /// Whether a process was started from outside: its parent is there and is none of the instance's.
    fn is_foreign(&self, pid: i32, parent: i32) -> bool {
        if self.membership(parent).is_none() {
            return false;
        }
        // A parent that has ended meanwhile has left its child to another.
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Status::parse(&text).parent() == parent
    }

    /// Its interface, addresses, routes and rules.
    pub(crate) fn network(&self) -> Vec<Drift> {
        let Some(attached) = &self.attached else { return Vec::new() };
        let differences = self.network_namespace().and_then(|namespace| {
            interior::differences(&namespace, attached).map_err(io::Error::other)
        });
        let drift: Vec<Drift> =
            differences.unwrap_or_default().iter().map(crate::network::Difference::drift).collect();
        if drift.is_empty() || !self.is_alive() { Vec::new() } else { drift }
    }

    /// The namespace of its network; a handle keeps it, so it is not to be held for long.
    pub(crate) fn network_namespace(&self) -> io::Result<Namespace> {
        let path = format!("/proc/{}/ns/net", self.main);
        Namespace::open(Path::new(&path)).map_err(io::Error::other)
    }
}
