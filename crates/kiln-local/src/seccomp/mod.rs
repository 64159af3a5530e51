//! The system call filter that instances run under: its profile, and its translation to BPF.
//!
//! The filter is one classic BPF program (see the kernel's
//! Documentation/userspace-api/seccomp_filter.rst). The allowed numbers are folded into ranges
//! and searched by halving, so that a call costs about seven comparisons and installing the
//! filter, for which the kernel runs it once per system call number, stays cheap; a filter that
//! tests one number after the other takes the kernel tens of times longer to install.

mod bpf;
mod learn;
mod narrow;
mod profile;

use std::io;
use std::sync::OnceLock;

use bpf::Program;
use kiln_model::spec::server::Seccomp;
pub use learn::Learner;

/// A profile names system calls that the default one refuses.
#[derive(Debug, thiserror::Error)]
#[error("the system call profile names {}, which no instance may call", .0.join(", "))]
pub struct Refused(Vec<String>);

/// A compiled filter.
#[derive(Debug)]
pub struct Filter {
    program: Program,
    /// Whether a listener goes with it.
    learns: bool,
}

impl From<Program> for Filter {
    fn from(program: Program) -> Self {
        Self { program, learns: false }
    }
}

impl Filter {
    /// The default profile, compiled once.
    pub fn default_profile() -> &'static Self {
        static FILTER: OnceLock<Filter> = OnceLock::new();
        FILTER.get_or_init(|| bpf::compile(&profile::rules()).into())
    }

    /// The filter of an instance.
    pub fn of(profile: &Seccomp) -> Result<Self, Refused> {
        let rules = match profile {
            Seccomp::Default => profile::rules(),
            Seccomp::Strict => narrow::strict_rules(),
            Seccomp::Only(names) => narrow::rules_of(names).map_err(Refused)?,
        };
        Ok(bpf::compile(&rules).into())
    }

    /// The default profile, under which whoever holds the listener is told of each call.
    pub fn learning() -> Self {
        Self { program: bpf::compile(&narrow::learning_rules()), learns: true }
    }

    /// The profile of programs that run while an image is built: the default one, with `chroot`.
    /// Where the clock is fixed, who traces the program answers questions for the time of the
    /// wall.
    pub fn build_profile(clock_is_fixed: bool) -> Self {
        bpf::compile(&profile::build_rules(clock_is_fixed)).into()
    }

    /// Puts the calling thread under the filter, for good. `no_new_privs` must be set.
    pub fn install(&self) -> io::Result<()> {
        if self.learns { self.program.install_listening() } else { self.program.install() }
    }
}
