//! One process: its privileges, namespaces and program, see `proc_pid_status(5)`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use kiln_model::drift::{Aspect, Drift};

use crate::instance::baseline::{Baseline, namespace};

/// The kernel's flag of a process that is ending (`PF_EXITING` of `linux/sched.h`).
const EXITING: u64 = 0x4;
/// `SECCOMP_MODE_FILTER`.
const FILTERED: &str = "2";

/// What processes of an instance are to be.
#[derive(Debug)]
pub(super) struct Expected {
    /// The host's user and group.
    pub(super) ids: (u32, u32),
    pub(super) baseline: Option<Baseline>,
}

/// What `/proc/PID/status` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status<'a> {
    fields: BTreeMap<&'a str, &'a str>,
}

impl<'a> Status<'a> {
    const FIELDS: [&'static str; 13] = [
        "CapAmb",
        "CapBnd",
        "CapEff",
        "CapInh",
        "CapPrm",
        "Gid",
        "Name",
        "NoNewPrivs",
        "PPid",
        "Seccomp",
        "State",
        "TracerPid",
        "Uid",
    ];

    pub(super) fn parse(text: &'a str) -> Self {
        let fields = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(":\t")?;
            Self::FIELDS.contains(&name).then_some((name, value.trim()))
        });
        Self { fields: fields.collect() }
    }

    /// A field; empty where this kernel does not have it.
    fn field(&self, name: &str) -> &'a str {
        self.fields.get(name).copied().unwrap_or_default()
    }

    /// The process that traces it; 0 for none.
    pub(super) fn tracer(&self) -> i32 {
        self.field("TracerPid").parse().unwrap_or(0)
    }

    pub(super) fn parent(&self) -> i32 {
        self.field("PPid").parse().unwrap_or(0)
    }

    /// In what the privileges of process `pid` are not those of every process of an instance.
    pub(super) fn differences(&self, pid: i32, expected: &Expected) -> Vec<Drift> {
        let mut drift = Vec::new();
        let mut differ = |aspect, expected: String, found: String| {
            drift.push(Drift::new(aspect, expected, format!("{found} ({})", self.who(pid))));
        };
        for (name, id) in [("Uid", expected.ids.0), ("Gid", expected.ids.1)] {
            let found = self.field(name);
            if found.split_whitespace().any(|one| one.parse() != Ok(id)) {
                differ(Aspect::User, format!("{name} {id}"), format!("{name} {found}"));
            }
        }
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let found = self.field(name);
            if found.bytes().any(|digit| digit != b'0') {
                differ(Aspect::Capabilities, format!("{name} none"), format!("{name} {found}"));
            }
        }
        // A kernel without such a field has nothing to be measured.
        if !["", "1"].contains(&self.field("NoNewPrivs")) {
            differ(Aspect::NoNewPrivs, "1".to_owned(), self.field("NoNewPrivs").to_owned());
        }
        if !["", FILTERED].contains(&self.field("Seccomp")) {
            differ(Aspect::Seccomp, FILTERED.to_owned(), self.field("Seccomp").to_owned());
        }
        drift
    }

    /// The process, for people.
    pub(super) fn who(&self, pid: i32) -> String {
        format!("process {pid}, {}", self.field("Name"))
    }
}

impl Expected {
    /// In what the namespaces and the program of a process are not the instance's.
    pub(super) fn of_baseline(&self, pid: i32, who: &str) -> Vec<Drift> {
        let Some(baseline) = &self.baseline else { return Vec::new() };
        let mut drift = Vec::new();
        for (kind, expected) in &baseline.namespaces {
            if let Some(found) = namespace(pid, kind).filter(|found| found != expected) {
                let found = format!("{kind} {found} ({who})");
                drift.push(Drift::new(Aspect::Namespaces, format!("{kind} {expected}"), found));
            }
        }
        // It follows the link to the file itself, whatever its name is or was.
        if let Ok(file) = fs::metadata(format!("/proc/{pid}/exe")) {
            let own = file.dev() == baseline.root_device
                || (file.dev(), file.ino()) == baseline.executable;
            if !own {
                let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let found = format!("{} from elsewhere ({who})", path.display());
                drift.push(Drift::new(Aspect::Executable, "a file of the image", found));
            }
        }
        drift
    }
}

/// The fields of a process's line of state behind its name, which may itself hold anything.
/// That of its first task: the kernel need not add up all tasks for it.
fn state(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.to_owned())
}

/// Whether a process is gone or about to go: what it is then says nothing any more.
pub(crate) fn is_exiting(pid: i32) -> bool {
    let Some(state) = state(pid) else { return true };
    let mut fields = state.split(' ');
    let letter = fields.next().unwrap_or_default();
    // Numbered from 1 in proc_pid_stat(5): state is field 3, flags field 9.
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
    matches!(letter, "Z" | "X" | "x") || flags & EXITING != 0
}

/// When a process was started: clock ticks since the boot.
pub(super) fn started(pid: i32) -> Option<u64> {
    // Field 22; the first here is field 3.
    state(pid)?.split(' ').nth(19)?.parse().ok()
}

/// Whether a process is kept from running by a signal (`T`) or a tracer (`t`).
pub(crate) fn is_stopped(pid: i32) -> bool {
    state(pid).is_some_and(|state| state.starts_with(['T', 't']))
}

/// What a process is called, for people.
pub(crate) fn name_of(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid}, {}", name.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Name:\tkiln-probe
Umask:\t0022
State:\tS (sleeping)
PPid:\t41
TracerPid:\t0
Uid:\t100033\t100033\t100033\t100033
Gid:\t100033\t100033\t100033\t100033
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
";

    fn found(text: &str) -> Vec<(Aspect, String)> {
        let expected = Expected { ids: (100_033, 100_033), baseline: None };
        let drift = Status::parse(text).differences(7, &expected);
        drift.into_iter().map(|drift| (drift.what, drift.found)).collect()
    }

    #[test]
    fn privileges_that_an_instance_never_has_are_named() {
        assert_eq!(found(TEXT), []);
        let root = found(&TEXT.replace("Uid:\t100033", "Uid:\t0"));
        let text = "Uid 0\t100033\t100033\t100033 (process 7, kiln-probe)";
        assert_eq!(root, [(Aspect::User, text.to_owned())]);
        let able = found(&TEXT.replace("CapEff:\t0000000000000000", "CapEff:\t0000000000200000"));
        assert_eq!(able[0].0, Aspect::Capabilities);
        assert_eq!(
            found(&TEXT.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0"))[0].0,
            Aspect::NoNewPrivs
        );
        assert_eq!(found(&TEXT.replace("Seccomp:\t2", "Seccomp:\t0"))[0].0, Aspect::Seccomp);
    }

    #[test]
    fn what_a_program_may_do_to_itself_is_no_difference() {
        // A filter more, another name, stopped for a moment.
        let text = TEXT.replace("filters:\t1", "filters:\t3").replace("kiln-probe", "a: title");
        assert_eq!(found(&text), []);
        assert_eq!(Status::parse(&text).tracer(), 0);
    }

    #[test]
    fn a_process_that_has_ended_is_about_to_go() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!is_exiting(own) && !is_stopped(own));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !is_exiting(pid) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_exiting(pid));
    }
}
