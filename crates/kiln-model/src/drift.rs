//! In what something can differ from what its digest says.

use std::fmt;

use serde::{Deserialize, Serialize, de};

/// One difference between what something is and what its digest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What differs.
    pub what: Aspect,
    /// What the digest says.
    pub expected: String,
    /// What was measured.
    pub found: String,
}

impl Drift {
    /// A difference.
    pub fn new(what: Aspect, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what, expected: expected.into(), found: found.into() }
    }
}

macro_rules! aspects {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// What can differ. In JSON, and for people, it is its [`name`](Self::name).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Aspect {
            $($(#[$doc])+ $variant,)+
        }

        impl Aspect {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name, which never changes.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

aspects! {
    /// The root filesystem's content.
    Image = "image",
    /// Mounts: what is mounted where, and how.
    Mounts = "mounts",
    /// The namespaces of a process.
    Namespaces = "namespaces",
    /// User and group of a process.
    User = "user",
    /// Capabilities of a process.
    Capabilities = "capabilities",
    /// Whether a process can gain privileges by executing a program.
    NoNewPrivs = "no_new_privs",
    /// The filter of system calls of a process.
    Seccomp = "seccomp",
    /// The file that a process executes.
    Executable = "executable",
    /// A process that does not belong there, or is gone from where it does.
    Process = "process",
    /// Whether a process is under another's control.
    Ptrace = "ptrace",
    /// Whether the main process is kept from running.
    Stopped = "stopped",
    /// The control groups that a process is in.
    Cgroup = "cgroup",
    /// The bound on memory and swap.
    CgroupMemory = "cgroup.memory",
    /// The bound on processor time.
    CgroupCpu = "cgroup.cpu",
    /// The bound on processes.
    CgroupPids = "cgroup.pids",
    /// The namespace of a network.
    Network = "network",
    /// A network interface.
    Interface = "network.interface",
    /// An address.
    Address = "network.address",
    /// A route.
    Route = "network.route",
    /// A rule of the packet filter.
    Nftables = "network.nftables",
    /// A setting of the kernel for a network.
    Sysctl = "network.sysctl",
    /// Settings of a database that were made by hand.
    Settings = "database.settings",
    /// A database's user with all rights whom Kiln did not make.
    Superusers = "database.superusers",
    /// What was written down about it.
    Record = "record",
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Aspect {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Aspect {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().find(|aspect| aspect.name() == name);
        known.copied().ok_or_else(|| de::Error::custom(format!("nothing that can differ: {name}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ_and_are_read_back() {
        let names: BTreeSet<&str> = Aspect::ALL.iter().map(|aspect| aspect.name()).collect();
        assert_eq!(names.len(), Aspect::ALL.len());
        for aspect in Aspect::ALL {
            let json = serde_json::to_string(aspect).unwrap();
            assert_eq!(json, format!("\"{aspect}\""));
            assert_eq!(serde_json::from_str::<Aspect>(&json).unwrap(), *aspect);
        }
        assert!(serde_json::from_str::<Aspect>("\"weather\"").is_err());
    }
}
