//! HTTP/1.1 and HTTP/2 from clients, either to instances.

pub(crate) mod body;
mod clock;
pub(crate) mod fault;
mod forward;
pub(crate) mod limits;
pub(crate) mod note;
pub(crate) mod one;
mod proxy;
pub(crate) mod serve;
mod tunnel;

pub(crate) use serve::{Version, serve};
