//! HTTP/1.1 and HTTP/2 from clients, HTTP/1.1 to instances.

pub(crate) mod body;
mod clock;
mod fault;
mod forward;
pub(crate) mod limits;
mod proxy;
mod serve;
mod tunnel;

pub(crate) use serve::{Version, serve};
