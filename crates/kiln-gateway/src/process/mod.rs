//! The gateway as a process: its start, its end, and what it keeps in `ROOT/run`.

mod build;
mod lock;
mod presence;
mod run;
mod spawn;

pub(crate) use build::build;
pub use build::build_of;
pub(crate) use lock::Lock;
pub(crate) use presence::Presence;
pub use run::run;
pub use spawn::{StartError, ensure_running, renew};
