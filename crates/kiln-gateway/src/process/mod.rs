//! The gateway as a process: its start, its end, and what it keeps in `ROOT/run`.

mod lock;
mod run;
mod spawn;

pub use run::run;
pub use spawn::{StartError, ensure_running};
