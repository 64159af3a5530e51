//! Sockets made inside a network namespace and used anywhere.
//!
//! A socket belongs for life to the namespace in which it was created, whoever holds it. So a
//! process of the host reaches the instances of a network by entering the network's namespace just
//! for `socket(2)` and coming straight back: two `setns(2)` calls of about a microsecond each. The
//! namespace of the network is a property of a thread, not of a process, so other threads notice
//! nothing, and nothing is kept running for a network that is idle.
//!
//! No function here leaves the calling thread anywhere else than where it was, whatever happens: a
//! thread that could not come back would send the traffic of one network into another, so the
//! process is aborted instead.

mod error;
mod namespace;
mod socket;

pub use error::Error;
pub use namespace::Namespace;
