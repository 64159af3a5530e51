//! Profiles that allow less than the default one: the strict one, and what a file names, by hand or
//! learned.

use std::collections::{BTreeMap, BTreeSet};

use super::bpf::Verdict;
use super::profile::{ELSEWHERE, allowed, number, rules};

/// What the strict profile leaves out beside the default one: ways for programs to run what lies in
/// no file, to share memory and messages past the network, to move pages between pipes and files,
/// and what only tools of administrators call. Of sockets it allows unix and the internet's only.
const NOT_STRICT: &[&str] = &[
    "adjtimex",
    "clock_adjtime",
    "execveat",
    "get_thread_area",
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_setup",
    "io_submit",
    "ioprio_set",
    "memfd_create",
    "memfd_secret",
    "mknod",
    "mknodat",
    "mlockall",
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedsend",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "personality",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "process_mrelease",
    "remap_file_pages",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "seccomp",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "set_thread_area",
    "setpriority",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
    "splice",
    "syncfs",
    "tee",
    "vmsplice",
];

/// What every program needs between the filter and its own begin, and to end.
const ALWAYS: &[&str] = &[
    "brk",
    "chdir",
    "close",
    "execve",
    "exit",
    "exit_group",
    "fcntl",
    "futex",
    "mmap",
    "mprotect",
    "munmap",
    "restart_syscall",
    "rt_sigreturn",
    "write",
    "writev",
];

/// What is bounded by its arguments in every profile, and is not learned call by call.
const BOUNDED_ALWAYS: [&str; 2] = ["clone", "socket"];

/// The default profile without what servers seldom need.
pub(super) fn strict_rules() -> BTreeMap<u32, Verdict> {
    let mut rules = rules();
    for number in NOT_STRICT.iter().filter_map(|name| number(name)) {
        rules.remove(&number);
    }
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    let values = families.iter().filter_map(|family| u32::try_from(*family).ok()).collect();
    let socket = number("socket").map(|n| (n, Verdict::FirstArgument { mask: u32::MAX, values }));
    rules.extend(socket);
    rules
}

/// The default profile with everything that it allows told of, but for what is always allowed: until
/// somebody listens, that must go through.
pub(super) fn learning_rules() -> BTreeMap<u32, Verdict> {
    let always: BTreeSet<u32> = ALWAYS.iter().filter_map(|name| number(name)).collect();
    let mut rules = rules();
    for (number, verdict) in &mut rules {
        if *verdict == Verdict::Allow && !always.contains(number) {
            *verdict = Verdict::Notify;
        }
    }
    rules
}

/// The names of a profile that allows the calls of these numbers.
pub(super) fn names_of(numbers: &BTreeSet<u32>) -> BTreeSet<String> {
    let learned = allowed().filter(|(_, n)| numbers.contains(n)).map(|(name, _)| name);
    let always = ALWAYS.iter().chain(&BOUNDED_ALWAYS).copied();
    learned.chain(always).map(str::to_owned).collect()
}

/// Just the calls of these names, as the default profile allows them. Those that this architecture
/// has not are left out; an error names those that the default profile refuses.
pub(super) fn rules_of(names: &BTreeSet<String>) -> Result<BTreeMap<u32, Verdict>, Vec<String>> {
    let foreign = |name: &&String| number(name).is_none() && !ELSEWHERE.contains(&name.as_str());
    let refused: Vec<String> = names.iter().filter(foreign).cloned().collect();
    if !refused.is_empty() {
        return Err(refused);
    }
    let names = names.iter().map(String::as_str).chain(ALWAYS.iter().copied());
    let wanted: BTreeSet<u32> = names.filter_map(number).collect();
    let mut rules = rules();
    // How `clone3` fails makes programs use `clone`.
    let clone3 = number("clone3");
    rules.retain(|number, _| wanted.contains(number) || Some(*number) == clone3);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_the_strict_profile_leaves_out_is_known() {
        for name in NOT_STRICT.iter().chain(ALWAYS) {
            assert!(number(name).is_some() || ELSEWHERE.contains(name), "{name}");
        }
        let (default, strict) = (rules(), strict_rules());
        assert!(strict.len() + 40 < default.len());
        assert!(strict.keys().all(|number| default.contains_key(number)));
    }

    #[test]
    fn a_profile_of_names_allows_no_more_than_the_default_one() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let rules = rules_of(&names(&["read", "clone", "socket"])).unwrap();
        let default = super::rules();
        assert!(rules.iter().all(|(number, verdict)| default.get(number) == Some(verdict)));
        for name in ALWAYS.iter().chain(&["read", "clone", "socket"]) {
            assert!(rules.contains_key(&number(name).unwrap()), "{name}");
        }
        assert!(!rules.contains_key(&number("openat").unwrap()));
        let refused = rules_of(&names(&["read", "mount", "bpf"])).unwrap_err();
        assert_eq!(refused, ["bpf", "mount"]);
    }
}
