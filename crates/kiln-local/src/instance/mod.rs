//! Instances seen from outside the launcher: asking for them, finding them, ending them.

pub mod baseline;
pub mod client;
mod destroy;
mod observe;
pub mod record;

pub(crate) use destroy::kill;
pub use destroy::{DestroyError, StopPolicy, destroy};
pub(crate) use observe::is_running;
pub use observe::{Observed, Presence, Process, observe_instances};
