//! The system call filter that instances run under: its profile, and its translation to BPF.
//!
//! The filter is one classic BPF program (see the kernel's
//! Documentation/userspace-api/seccomp_filter.rst). The allowed numbers are folded into ranges
//! and searched by halving, so that a call costs about seven comparisons and installing the
//! filter, for which the kernel runs it once per system call number, stays cheap; a filter that
//! tests one number after the other takes the kernel tens of times longer to install.

mod bpf;
mod profile;

use std::io;
use std::sync::OnceLock;

use bpf::Program;

/// A compiled filter.
#[derive(Debug)]
pub struct Filter(Program);

impl Filter {
    /// The default profile, compiled once.
    pub fn default_profile() -> &'static Self {
        static FILTER: OnceLock<Filter> = OnceLock::new();
        FILTER.get_or_init(|| Self(bpf::compile(&profile::rules())))
    }

    /// The profile of programs that run while an image is built: the default one, with `chroot`.
    /// Where the clock is fixed, who traces the program answers questions for the time of the
    /// wall.
    pub fn build_profile(clock_is_fixed: bool) -> Self {
        Self(bpf::compile(&profile::build_rules(clock_is_fixed)))
    }

    /// Puts the calling thread under the filter, for good. `no_new_privs` must be set.
    pub fn install(&self) -> io::Result<()> {
        self.0.install()
    }
}
