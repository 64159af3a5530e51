//! The sandbox in which programs of an image run while it is built.
//!
//! Each job has a helper process of its own (`kiln sandbox`), as making namespaces wants a single
//! thread and as the helper outlives whoever asked for just as long as it takes to clear up. It
//!
//! 1. clones process 1 of new namespaces into a control group of its own, with the job's directory
//!    as its root ([`child`]); that process starts the program and reaps what is orphaned;
//! 2. follows every process of it by ptrace(2), to answer for the clock of the wall ([`clock`]);
//! 3. ends them all when the program has ended, at the deadline, or when whoever asked is gone,
//!    which it sees by the end of its standard input.
//!
//! Processes have ids of their own ([`IDS`]) by a user namespace, and the directory is mounted so
//! that its owners are translated. What root may do in a user namespace is bounded to what files
//! and accounts need. Where the filesystem can't translate owners, the ids are those of the
//! machine, still without capabilities outside of the user namespace; the network is then refused.

mod child;
#[cfg(target_arch = "x86_64")]
mod clock;
mod helper;
mod local;
mod message;

pub use helper::run;
pub use local::LocalSandbox;

/// The first of the host's 65,536 ids that stand for those of sandboxes: right behind what
/// instances have.
const IDS: u32 = 0x7ffe_0000;
/// How many ids a sandbox has.
const COUNT: u32 = 0x1_0000;
/// Whether the clock of the wall can be fixed on this architecture.
const CLOCK_IS_FIXED: bool = cfg!(target_arch = "x86_64");
