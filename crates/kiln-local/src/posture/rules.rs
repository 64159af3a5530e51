//! The rules.

use super::Finding;
use super::facts::{Facts, Mount};

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name, for programs.
    pub id: &'static str,
    /// The recommendations of the CIS Docker Benchmark 1.6 that ask for it; empty where it goes
    /// beyond them.
    pub cis: &'static str,
    /// What is to be so.
    pub title: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Holds the rule against what was measured.
    pub check: fn(&Facts) -> Finding,
}

/// All rules, in the order in which they are shown.
pub const RULES: &[Rule] = &[
    Rule {
        id: "user-namespace",
        cis: "2.9, 5.31",
        title: "its users are not the host's",
        reason: "root inside is nobody outside, whatever else fails",
        check: user_namespace,
    },
    Rule {
        id: "capabilities",
        cis: "5.4, 5.5",
        title: "no process has a capability, or can get one",
        reason: "most ways out of a container begin with one",
        check: capabilities,
    },
    Rule {
        id: "no-new-privileges",
        cis: "5.26",
        title: "no program gives more rights than its caller has",
        reason: "a set-user-id program in an image is then harmless",
        check: no_new_privileges,
    },
    Rule {
        id: "seccomp",
        cis: "5.22",
        title: "every process is under a system call filter",
        reason: "what is never called can't be attacked in the kernel",
        check: seccomp,
    },
    Rule {
        id: "namespaces",
        cis: "5.10, 5.16, 5.17, 5.21",
        title: "it has network, processes, IPC, host name, mounts and control groups of its own",
        reason: "what can't be named can't be reached",
        check: namespaces,
    },
    Rule {
        id: "members",
        cis: "5.23, 5.24",
        title: "every process in its control groups is in its namespaces",
        reason: "a process that was put in from outside has come past every check",
        check: members,
    },
    Rule {
        id: "root-read-only",
        cis: "5.13",
        title: "its root is read-only",
        reason: "what can't be written can't be made to stay",
        check: root_read_only,
    },
    Rule {
        id: "host-directories",
        cis: "5.6, 5.32",
        title: "nothing of the host's filesystems is mounted, no control socket can be seen",
        reason: "a directory of the host is a door to it; a container engine's socket is the key",
        check: host_directories,
    },
    Rule {
        id: "writable-space",
        cis: "",
        title: "what can be written holds no devices and no set-id programs",
        reason: "a dropped file gives nothing that its writer has not",
        check: writable_space,
    },
    Rule {
        id: "propagation",
        cis: "5.20",
        title: "no mount is propagated from or to the host",
        reason: "a mount that is made on one side must not appear on the other",
        check: propagation,
    },
    Rule {
        id: "proc-masked",
        cis: "",
        title: "the parts of /proc that tell of the host are masked, those that configure it read-only",
        reason: "sysctls and /proc/kcore are the kernel's own doors",
        check: proc_masked,
    },
    Rule {
        id: "sys-read-only",
        cis: "",
        title: "/sys and the control groups in it are read-only",
        reason: "release_agent and friends run programs on the host",
        check: sys_read_only,
    },
    Rule {
        id: "devices",
        cis: "5.18",
        title: "no device but null, zero, full, random, urandom and tty",
        reason: "a disk or /dev/mem is the whole host",
        check: devices,
    },
    Rule {
        id: "memory",
        cis: "5.11",
        title: "memory is bounded",
        reason: "one instance must not starve the host",
        check: memory,
    },
    Rule {
        id: "pids",
        cis: "5.29",
        title: "the number of processes is bounded",
        reason: "a fork bomb ends at the bound",
        check: pids,
    },
    Rule {
        id: "control-group",
        cis: "5.25",
        title: "it is in control groups of its own",
        reason: "bounds hold for what is in the group",
        check: control_group,
    },
    Rule {
        id: "limits",
        cis: "5.19",
        title: "no core files, a bounded number of open files",
        reason: "a core file is memory on a disk",
        check: limits,
    },
    Rule {
        id: "oom-score",
        cis: "",
        title: "the kernel does not spare it when memory runs out",
        reason: "an instance must go before what the host needs",
        check: oom_score,
    },
    Rule {
        id: "no-remote-shell",
        cis: "5.7",
        title: "no SSH or telnet server runs in it",
        reason: "nothing is changed in place, so nobody needs to get in",
        check: no_remote_shell,
    },
];

fn user_namespace(facts: &Facts) -> Finding {
    match facts.mapped_to {
        Some(0) => Finding::new(false, "user 0 of it is user 0 of the host"),
        Some(id) => Finding::new(true, format!("user 0 of it is user {id} of the host")),
        None => Finding::new(true, "user 0 of it is nobody of the host"),
    }
}

fn capabilities(facts: &Facts) -> Finding {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let held: Vec<String> = sets
        .iter()
        .flat_map(|set| facts.status(set).into_iter().map(move |value| (set, value)))
        .filter(|(_, value)| value.bytes().any(|digit| digit != b'0'))
        .map(|(set, value)| format!("{set} {value}"))
        .collect();
    let none = held.is_empty();
    Finding::new(none, if none { "none in any set".to_owned() } else { held.join(", ") })
}

/// A field of every process's status has the one value that it must have.
fn all(facts: &Facts, field: &str, value: &str) -> Finding {
    let found = facts.status(field);
    Finding::new(found == [value], format!("{field} {}", found.join(", ")))
}

fn no_new_privileges(facts: &Facts) -> Finding {
    all(facts, "NoNewPrivs", "1")
}

fn seccomp(facts: &Facts) -> Finding {
    // 2 is SECCOMP_MODE_FILTER.
    all(facts, "Seccomp", "2")
}

fn namespaces(facts: &Facts) -> Finding {
    let shared: Vec<&str> = facts
        .namespaces
        .iter()
        .filter(|(_, [its, own])| its == own)
        .map(|(name, _)| *name)
        .collect();
    let found = match shared.as_slice() {
        [] => format!("{} of its own", facts.namespaces.len()),
        shared => format!("shares {}", shared.join(", ")),
    };
    Finding::new(shared.is_empty() && facts.namespaces.len() >= 6, found)
}

fn members(facts: &Facts) -> Finding {
    match facts.stranger {
        None => Finding::new(true, format!("{} processes", facts.statuses.len())),
        Some(pid) => Finding::new(false, format!("process {pid} is in other namespaces")),
    }
}

fn root_read_only(facts: &Facts) -> Finding {
    match at(facts, "/") {
        Some(root) => {
            Finding::new(root.has("ro"), format!("{} {}", root.kind, root.options.join(",")))
        }
        None => Finding::new(false, "it has no root mount"),
    }
}

/// The mount that is seen at a path: the last one there.
fn at<'a>(facts: &'a Facts, path: &str) -> Option<&'a Mount> {
    facts.mounts.iter().rev().find(|mount| mount.at == path)
}

/// Types of filesystems that an instance may have: of the kernel, of memory, and the image's.
const OWN_KINDS: [&str; 8] =
    ["erofs", "tmpfs", "proc", "sysfs", "devpts", "cgroup", "cgroup2", "mqueue"];

fn host_directories(facts: &Facts) -> Finding {
    if let Some(socket) = &facts.control_socket {
        return Finding::new(false, format!("{socket} can be seen"));
    }
    let foreign: Vec<String> = facts
        .mounts
        .iter()
        .filter(|mount| !OWN_KINDS.contains(&mount.kind.as_str()))
        .map(|mount| format!("{} at {} ({} of it)", mount.kind, mount.at, mount.part))
        .collect();
    if foreign.is_empty() {
        return Finding::new(true, format!("{} mounts, all its own", facts.mounts.len()));
    }
    Finding::new(false, foreign.join(", "))
}

fn writable_space(facts: &Facts) -> Finding {
    let writable: Vec<&Mount> =
        facts.mounts.iter().filter(|m| m.has("rw") && m.kind == "tmpfs").collect();
    let loose: Vec<&str> = writable
        .iter()
        .filter(|mount| !(mount.has("nosuid") && mount.has("nodev")))
        .map(|mount| mount.at.as_str())
        .collect();
    if loose.is_empty() {
        return Finding::new(true, format!("{} places, nosuid and nodev", writable.len()));
    }
    Finding::new(false, format!("without nosuid or nodev: {}", loose.join(", ")))
}

fn propagation(facts: &Facts) -> Finding {
    let tied: Vec<String> = facts
        .mounts
        .iter()
        .filter(|mount| !mount.propagation.is_empty())
        .map(|mount| format!("{} {}", mount.at, mount.propagation.join(" ")))
        .collect();
    let none = tied.is_empty();
    Finding::new(none, if none { "all private".to_owned() } else { tied.join(", ") })
}

fn proc_masked(facts: &Facts) -> Finding {
    let masked = |path: &str| at(facts, path).is_some_and(|m| m.has("ro") && m.kind != "proc");
    let kept = |path: &str| at(facts, path).is_some_and(|m| m.has("ro") && m.kind == "proc");
    let mut open: Vec<&str> =
        ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger"]
            .into_iter()
            // What this kernel has not needs no mask.
            .filter(|path| std::path::Path::new(path).exists() && !masked(path))
            .collect();
    open.extend(
        ["/proc/sys", "/proc/fs", "/proc/bus", "/proc/irq"]
            .into_iter()
            .filter(|path| std::path::Path::new(path).exists() && !kept(path)),
    );
    let none = open.is_empty();
    let found = if none { "masked and read-only".to_owned() } else { open.join(", ") };
    Finding::new(none, found)
}

fn sys_read_only(facts: &Facts) -> Finding {
    let open: Vec<&str> = facts
        .mounts
        .iter()
        .filter(|mount| ["sysfs", "cgroup", "cgroup2"].contains(&mount.kind.as_str()))
        .filter(|mount| !mount.has("ro"))
        .map(|mount| mount.at.as_str())
        .collect();
    let none = open.is_empty();
    Finding::new(none, if none { "read-only".to_owned() } else { open.join(", ") })
}

fn devices(facts: &Facts) -> Finding {
    let own = ["full", "null", "ptmx", "random", "tty", "urandom", "zero"];
    let foreign: Vec<&str> =
        facts.devices.iter().map(String::as_str).filter(|name| !own.contains(name)).collect();
    let found = if foreign.is_empty() { facts.devices.join(" ") } else { foreign.join(" ") };
    Finding::new(foreign.is_empty(), found)
}

/// A bound of the control groups: a number below the one that stands for none.
fn bound(facts: &Facts, names: [&str; 2]) -> Finding {
    let Some((name, text)) = names.iter().find_map(|n| facts.bounds.get_key_value(n)) else {
        return Finding::new(false, "it has no such group");
    };
    // Version 1 writes the largest multiple of a page where there is no bound.
    let bounded = text.parse::<u64>().is_ok_and(|bytes| bytes < 1 << 60);
    Finding::new(bounded, format!("{name} {text}"))
}

fn memory(facts: &Facts) -> Finding {
    bound(facts, ["memory.max", "memory.limit_in_bytes"])
}

fn pids(facts: &Facts) -> Finding {
    bound(facts, ["pids.max", "pids.max"])
}

fn control_group(facts: &Facts) -> Finding {
    let found = if facts.grouped { "its main process is in them" } else { "it has left them" };
    Finding::new(facts.grouped, found)
}

fn limits(facts: &Facts) -> Finding {
    let limit = |name: &str| facts.limits.get(name).map_or("?", String::as_str);
    let (core, files) = (limit("Max core file size"), limit("Max open files"));
    let pass = core == "0/0" && !files.contains("unlimited");
    Finding::new(pass, format!("core {core}, open files {files}"))
}

fn oom_score(facts: &Facts) -> Finding {
    Finding::new(facts.oom_score >= 0, format!("oom_score_adj {}", facts.oom_score))
}

fn no_remote_shell(facts: &Facts) -> Finding {
    let servers = ["sshd", "dropbear", "telnetd", "in.telnetd"];
    let found: Vec<&str> =
        facts.programs.iter().map(String::as_str).filter(|p| servers.contains(p)).collect();
    let none = found.is_empty();
    Finding::new(none, if none { "none".to_owned() } else { found.join(", ") })
}
